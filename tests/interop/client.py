"""Drives two nodes through Python's `websockets`: python client.py HOST:PORT HOST:PORT"""

import asyncio
import json
import os
import sys

import websockets

# `wss` over TLS; the authority is then the one of the variable SSL_CERT_FILE.
SCHEME = os.environ.get("INTEROP_SCHEME", "ws")


async def receive(socket):
    frame = await asyncio.wait_for(socket.recv(), 20)
    assert isinstance(frame, str), f"expected text, got {type(frame)}"
    return json.loads(frame)


async def main(first, second):
    async with (
        websockets.connect(f"{SCHEME}://{first}/publish", subprotocols=["anode.v1.json"]) as publisher,
        websockets.connect(f"{SCHEME}://{second}/subscribe?source=py/**") as subscriber,
    ):
        assert publisher.subprotocol == "anode.v1.json", publisher.subprotocol
        greeting = await receive(publisher)
        assert greeting["connected"]["max_frame_bytes"] == 1048576, greeting
        assert "connected" in await receive(subscriber)
        assert (await receive(subscriber))["result"] == {"subscription": 1}
        assert "eos" in await receive(subscriber)

        await publisher.send(json.dumps({"id": "ü1", "source": "py/text", "data": "grüße 😀"}))
        answer = await receive(publisher)
        assert answer["id"] == "ü1" and answer["result"]["outcome"] == "applied", answer
        record = await receive(subscriber)
        assert record["data"] == "grüße 😀" and record["ts"] == answer["result"]["ts"], record

        # The message is sent in fragments, as the library does with what it streams.
        await publisher.send(['{"id":2,"source":"py/', 'fragments","da', 'ta":[1,2,3]}'])
        assert (await receive(publisher))["id"] == 2
        assert (await receive(subscriber))["data"] == [1, 2, 3]

        large = "x" * 60_000
        await publisher.send(json.dumps([{"id": 3, "source": "py/large", "data": large}, {"source": "py//bad", "data": 1}]))
        answers = await receive(publisher)
        assert [answer["index"] for answer in answers] == [0, 1], answers
        assert answers[1]["error"]["code"] == "bad_source", answers
        assert (await receive(subscriber))["data"] == large

        # The node answers a ping of the client.
        await asyncio.wait_for(await subscriber.ping(), 20)

        await publisher.send(b"\x00\x01")
        try:
            await asyncio.wait_for(publisher.recv(), 20)
            raise AssertionError("a binary frame was accepted")
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd.code == 1003, closed

    try:
        await websockets.connect(f"{SCHEME}://{first}/subscribe?source=a**")
        raise AssertionError("a bad pattern was accepted")
    except websockets.InvalidStatus as refused:
        assert refused.response.status_code == 400, refused


asyncio.run(main(*sys.argv[1:3]))
print("interop ok")
