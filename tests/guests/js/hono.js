// A Hono application as its users write them: routes, parameters, JSON, middleware, errors.
import { Hono } from "hono";

const app = new Hono();

app.use("*", async (context, next) => {
  await next();
  context.header("x-served-by", "hono");
});

app.get("/", (context) => context.text("hello from hono\n"));
app.get("/users/:id", (context) =>
  context.json({ id: context.req.param("id"), tags: context.req.queries("tag") ?? [] }),
);
app.post("/sum", async (context) => {
  const { numbers } = await context.req.json();
  return context.json({ sum: numbers.reduce((sum, number) => sum + number, 0) });
});
app.all("/origin/*", (context) => fetch(context.req.raw, { backend: "origin" }));
app.get("/broken", () => {
  throw new Error("broken on purpose");
});
app.notFound((context) => context.text(`no ${context.req.path}\n`, 404));
app.onError((error, context) => context.text(`${error.message}\n`, 500));

app.fire();
