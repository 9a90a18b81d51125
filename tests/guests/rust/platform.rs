// The official Rust crate: backends, the stores and streaming, one case for each path.
// Wants a backend `origin`, a KV store `cart`, a config store `flags` and a secret store `keys`.
use std::io::Write;
use std::time::Duration;

use fastly::http::{HeaderValue, request};
use fastly::kv_store::{InsertMode, KVStoreError};
use fastly::{ConfigStore, Error, KVStore, Request, Response, SecretStore, compute_runtime};

fn main() -> Result<(), Error> {
    fastly::init();
    let request = Request::from_client();
    let path = request.get_path().to_owned();
    let answer = match path.as_str() {
        "/select" => select()?,
        "/upload" => upload(request)?,
        "/stream" => return stream(),
        "/cached" => cached()?,
        "/products" => products()?,
        "/config" => config(request),
        "/secret" => secret(request)?,
        _ if path.starts_with("/kv/") => kv(request, &path[4..])?,
        _ => pass(request),
    };
    answer.send_to_client();
    Ok(())
}

/// The client's request as it came, to the backend that `x-backend` names; its failure as text.
fn pass(request: Request) -> Response {
    let backend = request.get_header_str("x-backend").unwrap_or("origin").to_owned();
    request.send(backend).unwrap_or_else(|error| {
        let said = format!("{}: {}\n", error.backend_name(), error.root_cause());
        Response::from_status(502).with_body_text_plain(&said)
    })
}

/// Two requests at once, told in the order in which their answers came; the backend is told of each
/// before the next is waited for.
fn select() -> Result<Response, Error> {
    let mut pending = ["slow", "fast"]
        .map(|name| Request::get(format!("http://origin.test/{name}")).with_pass(true))
        .into_iter()
        .map(|request| request.send_async("origin"))
        .collect::<Result<Vec<_>, _>>()?;
    let mut came = Vec::new();
    while !pending.is_empty() {
        let (answer, rest) = request::select(pending);
        let name = answer?.take_body_str();
        Request::post("http://origin.test/came")
            .with_pass(true)
            .with_body(name.clone())
            .send("origin")?;
        came.push(name);
        pending = rest;
    }
    Ok(Response::from_body(came.join(" ")))
}

/// Sends the client's body on piece by piece, between two pieces of its own.
fn upload(mut request: Request) -> Result<Response, Error> {
    let (mut out, pending) = Request::post("http://origin.test/echo")
        .with_pass(true)
        .send_async_streaming("origin")?;
    out.write_all(b"<")?;
    for chunk in request.take_body().read_chunks(1000) {
        out.write_all(&chunk?)?;
    }
    out.write_all(b">")?;
    out.finish()?;
    Ok(pending.wait()?)
}

/// Sends its head first, then what the backend says, line by line, each with its number.
fn stream() -> Result<(), Error> {
    let mut upstream = Request::get("http://origin.test/lines").with_pass(true).send("origin")?;
    let mut out = Response::new().with_header("x-streamed", "1").stream_to_client();
    for (number, line) in upstream.read_body_lines().enumerate() {
        writeln!(out, "{number} {}", line?)?;
        out.flush()?;
    }
    Ok(out.finish()?)
}

/// A request that says all there is to say to a cache.
fn cached() -> Result<Response, Error> {
    let answer = Request::get("http://origin.test/cached")
        .with_ttl(60)
        .with_stale_while_revalidate(30)
        .with_pci(true)
        .with_surrogate_key(HeaderValue::from_static("product-7"))
        .with_lookup_timeout(Duration::from_millis(250))
        .send("origin")?;
    Ok(answer)
}

/// What the platform says to have besides.
fn products() -> Result<Response, Error> {
    let found = compute_runtime::products().map_err(|status| Error::msg(status.code))?;
    let all = [found.domain_inspector, found.image_optimizer, found.origin_inspector];
    Ok(Response::from_body(format!("{all:?}")))
}

/// PUT with `x-mode` and `x-metadata`, GET, DELETE; `?list` gives the keys that begin with this one.
fn kv(mut request: Request, key: &str) -> Result<Response, Error> {
    let Some(store) = KVStore::open("cart")? else {
        return Ok(Response::from_status(500).with_body("no such store"));
    };
    let done = match request.get_method_str() {
        "PUT" => {
            let mode = match request.get_header_str("x-mode") {
                Some("add") => InsertMode::Add,
                Some("append") => InsertMode::Append,
                Some("prepend") => InsertMode::Prepend,
                _ => InsertMode::Overwrite,
            };
            let metadata = request.get_header_str("x-metadata").unwrap_or("").to_owned();
            let insert = store.build_insert().mode(mode).metadata(&metadata);
            insert.execute(key, request.take_body()).map(|()| Response::from_status(201))
        }
        "DELETE" => store.delete(key).map(|()| Response::from_status(204)),
        _ if request.get_query_str() == Some("list") => store
            .build_list()
            .prefix(key)
            .limit(10)
            .execute()
            .map(|page| Response::from_body(page.into_keys().join(" "))),
        _ => store.lookup(key).map(|mut found| {
            let metadata = found.metadata().unwrap_or_default();
            let generation = found.current_generation().to_string();
            Response::from_body(found.take_body())
                .with_header("x-metadata", &metadata[..])
                .with_header("x-generation", generation)
        }),
    };
    Ok(done.unwrap_or_else(|error| {
        let status = match error {
            KVStoreError::ItemNotFound => 404,
            KVStoreError::ItemPreconditionFailed => 412,
            _ => 500,
        };
        Response::from_status(status).with_body_text_plain(&format!("{error}\n"))
    }))
}

fn config(request: Request) -> Response {
    match ConfigStore::open("flags").get(request.get_query_str().unwrap_or("banner")) {
        Some(value) => Response::from_body(value),
        None => Response::from_status(404),
    }
}

fn secret(request: Request) -> Result<Response, Error> {
    let found = SecretStore::open("keys")?.get(request.get_query_str().unwrap_or("api"));
    Ok(match found {
        Some(secret) => Response::from_body(&secret.plaintext()[..]),
        None => Response::from_status(404),
    })
}
