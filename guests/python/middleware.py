"""A middleware in Python: a template to begin from. It does what the template in Rust does."""

import dataclasses
import json

from wit_world.imports.types import Payload_Json
from wit_world.imports.types import Verdict_Many, Verdict_Pass, Verdict_Reject, Verdict_Replace


class WitWorld:
    def handle(self, input):
        if not isinstance(input.payload, Payload_Json):
            return Verdict_Pass()
        data = json.loads(input.payload.value)
        if not isinstance(data, dict):
            return Verdict_Reject("data is not an object")
        fahrenheit = data.pop("f", None)
        if not isinstance(fahrenheit, (int, float)):
            return Verdict_Pass()
        celsius = round((fahrenheit - 32) / 1.8, 1)
        if not -90 <= celsius < 1000:
            return Verdict_Reject(f"{celsius} °C is no temperature")
        record = dataclasses.replace(input, payload=Payload_Json(json.dumps({**data, "c": celsius})))
        if celsius <= 60:
            return Verdict_Replace(record)
        return Verdict_Many([record, dataclasses.replace(record, source=f"alarms/{record.source}")])
