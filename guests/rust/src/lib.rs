//! A middleware in Rust: a template to begin from.
//!
//! It takes temperatures in degrees Fahrenheit, `{"f": 70.5}`, and lets them into the cluster in degrees Celsius. What
//! no thermometer shows is rejected, and a value above 60 °C is published a second time below `alarms/`.

use serde_json::{Value, json};

wit_bindgen::generate!({ path: "../../wit", world: "middleware" });

struct Celsius;

impl Guest for Celsius {
    fn handle(input: DataRecord) -> Verdict {
        let Payload::Json(text) = &input.payload else {
            return Verdict::Pass;
        };
        let Ok(Value::Object(mut data)) = serde_json::from_str(text) else {
            return Verdict::Reject("data is not an object".into());
        };
        let Some(fahrenheit) = data.remove("f").and_then(|value| value.as_f64()) else {
            return Verdict::Pass;
        };
        let celsius = ((fahrenheit - 32.0) / 1.8 * 10.0).round() / 10.0;
        if !(-90.0..1_000.0).contains(&celsius) {
            return Verdict::Reject(format!("{celsius} °C is no temperature"));
        }
        data.insert("c".into(), json!(celsius));
        let record = DataRecord { payload: Payload::Json(Value::Object(data).to_string()), ..input };
        if celsius <= 60.0 {
            return Verdict::Replace(record);
        }
        let alarm = DataRecord { source: format!("alarms/{}", record.source), ..record.clone() };
        Verdict::Many(vec![record, alarm])
    }
}

use anode::middleware::types::Payload;

export!(Celsius);
