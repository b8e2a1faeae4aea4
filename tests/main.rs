//! One binary for all tests that need more than one crate.

#[cfg(test)]
mod dialog;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod daemon;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod console;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod xdp;
#[cfg(test)]
mod image;
