// A sandbox of the Rust SDK that serves request after request and remembers: its name, which is
// the id of its first request, and how many it has served. `/crash` panics, `/leave` exits with 3.
use fastly::http::serve::Serve;
use fastly::{Error, Request, Response};

#[derive(Default)]
struct Memory {
    name: Option<String>,
    served: u32,
}

fn main() -> Result<(), Error> {
    fastly::init();
    Serve::new().run_with_context(answer, &mut Memory::default()).into_result()
}

fn answer(request: Request, memory: &mut Memory) -> Result<Response, Error> {
    memory.served += 1;
    let id = request.get_client_request_id().unwrap_or("none").to_owned();
    let name = memory.name.get_or_insert(id);
    match request.get_path() {
        "/crash" => panic!("panicked on purpose"),
        "/leave" => std::process::exit(3),
        "/fail" => Err(Error::msg("failed on purpose")),
        "/echo" => Ok(Response::from_body(request.into_body())),
        _ => Ok(Response::new().with_body_json(&(name, memory.served))?),
    }
}
