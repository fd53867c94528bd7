"""A gRPC server that knows nothing of Weft: echoes in all four call shapes, and fails on demand.

Usage: grpc_server.py PORT. Prints "ready" once it listens.
"""

import sys
import time
from concurrent import futures

import grpc


def unary(request, context):
    context.send_initial_metadata((("x-initial", "yes"),))
    context.set_trailing_metadata((("x-trailing", "yes"),))
    return request


def slow(request, context):
    time.sleep(float(request))
    return request


def server_stream(request, context):
    for index in range(int(request)):
        yield str(index).encode()


def client_stream(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def bidirectional(requests, context):
    yield from requests


def fail(request, context):
    context.set_trailing_metadata((("x-trailing", "yes"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as you wished: 100 %")


def main():
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Bidirectional": grpc.stream_stream_rpc_method_handler(bidirectional),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("weft.test.Echo", handlers),))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


main()
