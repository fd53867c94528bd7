//! What is wrong with a message of the other side.

use crate::name::NameError;

/// A message that breaks a rule of the protocol. The stream ends with it; state that is held stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Not protobuf, or a field of the wrong type.
    #[error("not a message of this protocol: {0}")]
    Encoding(String),
    /// A message without its content, or with one that this version does not know.
    #[error("{0} is missing or unknown")]
    Missing(&'static str),
    /// A name that breaks its rule.
    #[error("{field}: {fault}")]
    Name {
        /// Which field.
        field: &'static str,
        /// Which rule.
        #[source]
        fault: NameError,
    },
    /// A number that refers to nothing.
    #[error("{field} refers to entry {index}, of {length}")]
    Index {
        /// Which field.
        field: &'static str,
        /// The number.
        index: u32,
        /// How many entries there are.
        length: usize,
    },
    /// A number outside its range, or a value outside its closed list.
    #[error("{field} has the value {value}, which is not allowed")]
    Value {
        /// Which field.
        field: &'static str,
        /// The value.
        value: i64,
    },
    /// More entries than one may say.
    #[error("{count} {field} are too many")]
    TooMany {
        /// Which field.
        field: &'static str,
        /// How many came.
        count: usize,
    },
    /// Bytes of the wrong length.
    #[error("{field} has {length} bytes")]
    Length {
        /// Which field.
        field: &'static str,
        /// How many bytes came.
        length: usize,
    },
}

impl From<prost::DecodeError> for ControlError {
    fn from(fault: prost::DecodeError) -> Self {
        Self::Encoding(fault.to_string())
    }
}

/// Checks a name and says which field held it.
pub(super) fn named<T>(field: &'static str, checked: Result<T, NameError>) -> Result<T, ControlError> {
    checked.map_err(|fault| ControlError::Name { field, fault })
}

/// Narrows a number and says which field held it.
pub(super) fn narrow<T: TryFrom<u32>>(field: &'static str, value: u32) -> Result<T, ControlError> {
    T::try_from(value).map_err(|_| ControlError::Value { field, value: value.into() })
}
