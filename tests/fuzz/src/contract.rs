//! Messages as the wire contract describes them, with every field mostly there and mostly of a usual value.

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

use crate::input::word;

static CONTRACT: LazyLock<FileDescriptorSet> = LazyLock::new(|| {
    let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/contract.bin"));
    FileDescriptorSet::decode(bytes).expect("what the build script has written")
});

/// Builds the message of this name.
pub(crate) fn message(u: &mut Unstructured<'_>, name: &str) -> Result<Vec<u8>> {
    let all = CONTRACT.file.iter().flat_map(|it| &it.message_type);
    let described = all.into_iter().find(|it| it.name() == name).ok_or(arbitrary::Error::IncorrectFormat)?;
    let mut out = Vec::new();
    fields(u, described, &mut out)?;
    Ok(out)
}

fn fields(u: &mut Unstructured<'_>, described: &DescriptorProto, out: &mut Vec<u8>) -> Result<()> {
    for it in &described.field {
        let n_values = match it.label() {
            Label::Repeated => u.int_in_range(0..=3)?,
            // One alternative among some.
            _ if it.oneof_index.is_some() => u8::from(u.ratio(1, 3)?),
            _ => u8::from(u.ratio(15, 16)?),
        };
        (0..n_values).try_for_each(|_| field(u, described, it, out))?;
    }
    Ok(())
}

fn field(
    u: &mut Unstructured<'_>,
    within: &DescriptorProto,
    described: &FieldDescriptorProto,
    out: &mut Vec<u8>,
) -> Result<()> {
    let tag = u32::try_from(described.number()).unwrap_or(1);
    let bytes = match described.r#type() {
        Type::String => {
            let usual =
                ["n1", "registry.example:5000", "team/app", "10.0.0.1:65002", "", "https://a.example:1"];
            word(u, &usual)?.as_bytes().to_vec()
        }
        Type::Bytes => {
            let len = *u.choose(&[32, 32, 64, 96, 0, 31])?;
            vec![u.arbitrary()?; len]
        }
        Type::Message => {
            let name = described.type_name().rsplit('.').next().unwrap_or_default();
            match within.nested_type.iter().find(|it| it.name() == name) {
                Some(entry) => {
                    let mut bytes = Vec::new();
                    fields(u, entry, &mut bytes)?;
                    bytes
                }
                None => message(u, name)?,
            }
        }
        _ => {
            encode_key(tag, WireType::Varint, out);
            encode_varint(number(u)?, out);
            return Ok(());
        }
    };
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend(bytes);
    Ok(())
}

fn number(u: &mut Unstructured<'_>) -> Result<u64> {
    match u.int_in_range(0..=3)? {
        0 => u.int_in_range(0..=8),
        1 => Ok(1 << u.int_in_range(0..=63)?),
        2 => u.int_in_range(400..=600),
        _ => u.arbitrary(),
    }
}

/// The names of all messages that some call takes or gives.
#[cfg(test)]
pub(crate) fn sent() -> Vec<String> {
    let calls = CONTRACT.file.iter().flat_map(|it| &it.service).flat_map(|it| &it.method);
    let names = calls.flat_map(|it| [it.input_type(), it.output_type()]);
    names.map(|it| it.rsplit('.').next().unwrap_or(it).to_owned()).collect()
}
