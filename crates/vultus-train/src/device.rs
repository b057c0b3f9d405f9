//! The Burn device that tensors live on.

use burn::tensor::Device;

use crate::operations::Operations;

/// A device that is not there.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no device {name}; this build has: {available}")]
pub struct DeviceError {
    name: String,
    available: String,
}

/// Names that [`device`] knows in this build.
fn available_devices() -> Vec<&'static str> {
    let mut names = vec!["flex"];
    if cfg!(feature = "wgpu") {
        names.push("wgpu");
    }
    if cfg!(feature = "cuda") {
        names.push("cuda");
    }
    names
}

/// The device called `name`: `flex` (CPU), and `wgpu` or `cuda` where the feature is compiled in.
///
/// # Errors
/// An unknown name, with those that this build knows.
pub fn device(name: &str) -> Result<Device, DeviceError> {
    match name {
        "flex" => Ok(Device::flex()),
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(0)),
        _ => Err(DeviceError { name: name.to_owned(), available: available_devices().join(", ") }),
    }
}

/// Our kernels on `flex`, Burn's own operations elsewhere.
pub(crate) fn operations_of(device: &Device) -> Operations {
    if device.clone().inner() == Device::flex() { Operations::Kernels } else { Operations::Stock }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_device_lists_the_known() {
        let message = device("tpu").unwrap_err().to_string();
        assert!(message.contains("tpu") && message.contains("flex"), "{message}");
        assert_eq!(operations_of(&Device::flex().autodiff()), Operations::Kernels);
    }
}
