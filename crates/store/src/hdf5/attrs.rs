//! Attributes of a node, as JSON.

use std::collections::HashMap;

use hdf5_pure::{AttrValue, Datatype};
use serde_json::Value;

use super::kind::{Kind, kind_of};
use crate::tree::Attrs;

/// Attributes by name, sorted. Booleans are enumerations on disk; `refer` gives the path to which a reference leads.
pub(super) fn attrs_of(
    values: &HashMap<String, AttrValue>,
    types: &HashMap<String, Datatype>,
    refer: impl Fn(&str) -> Option<String>,
) -> Attrs {
    let mut names: Vec<&String> = values.keys().chain(types.keys()).collect();
    names.sort();
    names.dedup();
    let mut attrs = Attrs::new();
    for name in names {
        let datatype = types.get(name);
        let bool = datatype.is_some_and(|d| matches!(kind_of(d).0, Kind::Number { dtype: cellmill_matrix::DType::Bool, .. }));
        let value = match values.get(name) {
            Some(value) => json(value, bool),
            None if matches!(datatype, Some(Datatype::Reference { .. })) => refer(name).map_or(Value::Null, Value::String),
            None => Value::Null,
        };
        attrs.insert(name.clone(), value);
    }
    attrs
}

fn json(value: &AttrValue, bool: bool) -> Value {
    let array = matches!(
        value,
        AttrValue::StringArray(_)
            | AttrValue::AsciiStringArray(_)
            | AttrValue::VarLenStringArray(_)
            | AttrValue::VarLenAsciiStringArray(_)
            | AttrValue::VarLenAsciiCharArray(_)
            | AttrValue::StringArraySized { .. }
            | AttrValue::AsciiStringArraySized { .. }
    );
    match (array, value.as_str(), value.as_strings()) {
        (true, _, Some(texts)) => return texts.into(),
        (false, Some(text), _) => return text.into(),
        _ => {}
    }
    let truth = |i: i64| if bool { Value::Bool(i != 0) } else { i.into() };
    match value {
        AttrValue::F32(x) => Value::from(*x),
        AttrValue::F64(x) => Value::from(*x),
        AttrValue::F32Array(x) => x.iter().map(|&x| Value::from(x)).collect(),
        AttrValue::F64Array(x) => x.iter().map(|&x| Value::from(x)).collect(),
        AttrValue::U64(x) => Value::from(*x),
        AttrValue::U64Array(x) => x.iter().map(|&x| Value::from(x)).collect(),
        AttrValue::I8(_) | AttrValue::I16(_) | AttrValue::I32(_) | AttrValue::I64(_) => value.as_i64().map_or(Value::Null, truth),
        AttrValue::U8(_) | AttrValue::U16(_) | AttrValue::U32(_) => value.as_i64().map_or(Value::Null, truth),
        _ => value.to_i64s().map_or(Value::Null, |all| all.into_iter().map(truth).collect()),
    }
}
