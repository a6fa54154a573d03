"""The gRPC half of the fault proxies; apart, because only it needs ``grpcio``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc

from tests.testbeds.faults import Dropped, Grpc, Slow

if TYPE_CHECKING:
    from tests.testbeds.proxy import GrpcProxy

OPTIONS = (
    ("grpc.so_reuseport", 0),  # otherwise a second server on the same port is accepted silently
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_metadata_size", 1 << 20),
)


def serve(proxy: GrpcProxy, upstream: str) -> tuple[Callable[[], None], int]:
    """Start a server for the proxy; gives the function that stops it, and its port."""
    channel = grpc.insecure_channel(upstream, options=OPTIONS)
    server = grpc.server(
        ThreadPoolExecutor(32), handlers=[_AnyMethod(proxy, channel)], options=OPTIONS
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    def stop() -> None:
        server.stop(None).wait()
        channel.close()

    return stop, port


class _AnyMethod(grpc.GenericRpcHandler):
    """Every method is forwarded as a stream of raw messages: on the wire one message is a stream."""

    def __init__(self, proxy: GrpcProxy, channel: grpc.Channel) -> None:
        self.proxy, self.channel = proxy, channel

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler:
        method, metadata = handler_call_details.method, handler_call_details.invocation_metadata

        def forward(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            return self.forward(method, metadata, messages, context)

        return grpc.stream_stream_rpc_method_handler(forward)

    def forward(
        self, method: str, metadata: Any, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        fault = self.proxy.arrived("gRPC", method)
        if isinstance(fault, Dropped):
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        if isinstance(fault, Grpc):
            context.set_trailing_metadata(tuple(fault.trailing.items()))
            context.abort(
                grpc.StatusCode[fault.code] if isinstance(fault.code, str) else fault.code,
                fault.details,
            )
        passed_on = [
            (key, value)
            for key, value in metadata
            if not key.startswith("grpc-") and key != "user-agent"
        ]
        call = self.channel.stream_stream(method)(
            messages, timeout=context.time_remaining(), metadata=passed_on
        )
        context.add_callback(call.cancel)
        try:
            answers: Iterator[bytes] = call
            if isinstance(fault, Slow):
                answers = iter(list(call))
                self.wait_for_release(context)
            context.send_initial_metadata(call.initial_metadata())
            yield from answers
            context.set_trailing_metadata(call.trailing_metadata())
        except grpc.RpcError as error:
            if not isinstance(error, grpc.Call):  # ours: the client has gone
                return
            context.set_trailing_metadata(error.trailing_metadata() or ())
            context.abort(error.code(), error.details() or "")

    def wait_for_release(self, context: grpc.ServicerContext) -> None:
        released = threading.Event()
        if context.add_callback(released.set):  # the client went away
            self.proxy.held(released.set)
            released.wait()
            self.proxy.left(released.set)
