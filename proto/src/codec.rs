//! The gRPC codec between this crate's types and their wire form.

use std::marker::PhantomData;

use prost::Message as _;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::convert::Wire;

/// What a stream has at hand for one message, in either direction; longer messages get more. A scheduler keeps a
/// stream for every node of a fleet, and most messages fit.
const BUFFER: usize = 1 << 10;
/// So much is encoded, where so much is to be said, before it is sent.
const SENT_AT_ONCE: usize = 32 << 10;

/// Encodes `T` and decodes `U` by way of their generated counterparts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for OwnCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Wire, U: Wire> Codec for OwnCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = OwnCodec<T, U>;
    type Decoder = OwnCodec<T, U>;

    fn encoder(&mut self) -> Self::Encoder {
        Self::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Self::default()
    }
}

impl<T: Wire, U: Wire> Encoder for OwnCodec<T, U> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.into_wire().encode(buffer).map_err(|it| Status::internal(format!("message: {it}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, SENT_AT_ONCE)
    }
}

impl<T: Wire, U: Wire> Decoder for OwnCodec<T, U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let wire =
            U::Generated::decode(buffer).map_err(|it| Status::invalid_argument(format!("message: {it}")))?;
        U::from_wire(wire).map(Some).map_err(|it| Status::invalid_argument(it.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, SENT_AT_ONCE)
    }
}
