//! A plain WASI program in Zig, in the manner of CGI: method and path come back on stdout.
const std = @import("std");

fn say(text: []const u8) void {
    var rest = text;
    while (rest.len > 0) {
        const piece = [1]std.os.wasi.ciovec_t{.{ .base = rest.ptr, .len = rest.len }};
        var wrote: usize = 0;
        if (std.os.wasi.fd_write(1, &piece, 1, &wrote) != .SUCCESS) std.process.exit(1);
        rest = rest[wrote..];
    }
}

pub fn main(init: std.process.Init) !void {
    say("Status: 200 OK\r\nContent-Type: text/plain\r\n\r\nzig: ");
    say(init.environ_map.get("REQUEST_METHOD") orelse "-");
    say(" ");
    say(init.environ_map.get("PATH_INFO") orelse "-");
    say("\n");
}
