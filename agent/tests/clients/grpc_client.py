"""A gRPC client that knows nothing of Weft: calls every shape through an outbound port and checks what comes back.

Usage: grpc_client.py OUTBOUND_ADDRESS AUTHORITY. Prints "passed" and exits 0 when all is as it must be.
"""

import sys
import threading

import grpc

DEADLINE = 20


def expect(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: got {got!r}, wanted {wanted!r}")


def main():
    address, authority = sys.argv[1:]
    channel = grpc.insecure_channel(address, options=[("grpc.default_authority", authority)])
    method = "/weft.test.Echo/{}".format

    large = b"x" * 1_000_000
    reply, call = channel.unary_unary(method("Unary")).with_call(large, timeout=DEADLINE)
    expect("unary", reply, large)
    expect("initial metadata", dict(call.initial_metadata()).get("x-initial"), "yes")
    expect("trailing metadata", dict(call.trailing_metadata()).get("x-trailing"), "yes")

    replies = list(channel.unary_stream(method("ServerStream"))(b"1000", timeout=DEADLINE))
    expect("server stream", replies, [str(index).encode() for index in range(1000)])

    total = channel.stream_unary(method("ClientStream"))((b"y" * 1000 for _ in range(500)), timeout=DEADLINE)
    expect("client stream", total, b"500000")

    # Each message is sent only after the last one came back: neither direction may be buffered.
    echoed = threading.Semaphore(1)

    def requests():
        for index in range(100):
            if not echoed.acquire(timeout=DEADLINE):
                return
            yield str(index).encode()

    count = 0
    for reply in channel.stream_stream(method("Bidirectional"))(requests(), timeout=DEADLINE):
        expect("bidirectional", reply, str(count).encode())
        count += 1
        echoed.release()
    expect("bidirectional messages", count, 100)

    try:
        channel.unary_unary(method("Fail"))(b"", timeout=DEADLINE)
        sys.exit("fail: no error came back")
    except grpc.RpcError as error:
        expect("status", error.code(), grpc.StatusCode.FAILED_PRECONDITION)
        expect("message", error.details(), "as you wished: 100 %")
        expect("trailers of an error", dict(error.trailing_metadata()).get("x-trailing"), "yes")

    # Servers of gRPC end a connection on which they are asked for a sign of life too often. Two calls, because a
    # connection that was used before is asked sooner.
    for _ in range(2):
        reply = channel.unary_unary(method("Slow"))(b"6", timeout=DEADLINE)
        expect("a call that is silent for long", reply, b"6")
    print("passed")


main()
