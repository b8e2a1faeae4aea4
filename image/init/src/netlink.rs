//! One conversation with the kernel about links, addresses and routes: a request, its answer.
//!
//! *Failure*: the kernel's own error, with what was asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    BondMode, InfoBond, InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily as Family, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
    socket,
};

const ANSWER_MAX: usize = 64 << 10;

/// An open conversation.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    /// Opens one.
    ///
    /// # Errors
    /// The kernel has no network.
    pub(crate) fn open() -> Result<Self, String> {
        let flags = SockFlag::SOCK_CLOEXEC;
        socket(Family::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)
            .map(|socket| Self { socket })
            .map_err(|error| format!("rtnetlink: {error}"))
    }

    fn ask(&self, what: &str, message: RouteNetlinkMessage, flags: u16) -> Result<(), String> {
        let fail = |error: Errno| format!("{what}: {error}");
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        message.header.sequence_number = 1;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.socket.as_raw_fd(), &bytes, &kernel, MsgFlags::empty()).map_err(fail)?;
        let mut answer = vec![0; ANSWER_MAX];
        let got = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty()).map_err(fail)?;
        let answer = answer.get(..got).unwrap_or_default();
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(answer)
            .map_err(|error| format!("{what}: {error}"))?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => {
                let code = error.raw_code().checked_abs().unwrap_or_default();
                Err(fail(Errno::from_raw(code)))
            }
            _ => Ok(()),
        }
    }

    fn change(&self, what: &str, index: u32, attributes: Vec<LinkAttribute>) -> Result<(), String> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = attributes;
        self.ask(what, RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Gives an interface that is down another name.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn rename(&self, index: u32, name: &str) -> Result<(), String> {
        self.change("rename", index, vec![LinkAttribute::IfName(name.to_owned())])
    }

    /// Sets the octets of a packet.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), String> {
        self.change("mtu", index, vec![LinkAttribute::Mtu(mtu)])
    }

    /// Makes an interface a member of a bond.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn join(&self, index: u32, bond: u32) -> Result<(), String> {
        self.change("bond", index, vec![LinkAttribute::Controller(bond)])
    }

    /// Switches an interface on or off.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn set_up(&self, index: u32, up: bool) -> Result<(), String> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        message.header.change_mask = LinkFlags::Up;
        self.ask("link", RouteNetlinkMessage::SetLink(message), 0)
    }

    fn create(&self, name: &str, info: Vec<LinkInfo>, parent: Option<u32>) -> Result<(), String> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.extend(parent.map(LinkAttribute::Link));
        message.attributes.push(LinkAttribute::LinkInfo(info));
        self.ask("new link", RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a VLAN.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn vlan(&self, name: &str, parent: u32, id: u16) -> Result<(), String> {
        let data = LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(id)]));
        self.create(name, vec![LinkInfo::Kind(InfoKind::Vlan), data], Some(parent))
    }

    /// Makes a bond; links are looked at every 100 ms.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn bond(&self, name: &str, lacp: bool) -> Result<(), String> {
        let mode = if lacp { BondMode::Ieee8023Ad } else { BondMode::ActiveBackup };
        let data =
            LinkInfo::Data(InfoData::Bond(vec![InfoBond::Mode(mode), InfoBond::MiiMon(100)]));
        self.create(name, vec![LinkInfo::Kind(InfoKind::Bond), data], None)
    }

    /// Gives an interface an address.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn address(&self, index: u32, address: IpAddr, prefix: u8) -> Result<(), String> {
        let message = address_message(index, address, prefix);
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.ask("address", RouteNetlinkMessage::NewAddress(message), flags)
    }

    /// Takes an address away.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn no_address(&self, index: u32, address: IpAddr, prefix: u8) -> Result<(), String> {
        let message = address_message(index, address, prefix);
        self.ask("address", RouteNetlinkMessage::DelAddress(message), 0)
    }

    /// Takes a made interface (VLAN, bond) away.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn remove(&self, index: u32) -> Result<(), String> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.ask("remove", RouteNetlinkMessage::DelLink(message), 0)
    }

    /// Sends what is for everybody else to a gateway.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn default_route(&self, index: u32, gateway: IpAddr) -> Result<(), String> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(gateway);
        message.header.table = netlink_packet_route::route::RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Boot;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        let gateway = match gateway {
            IpAddr::V4(address) => RouteAddress::Inet(address),
            IpAddr::V6(address) => RouteAddress::Inet6(address),
        };
        message.attributes.push(RouteAttribute::Gateway(gateway));
        message.attributes.push(RouteAttribute::Oif(index));
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.ask("route", RouteNetlinkMessage::NewRoute(message), flags)
    }
}

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = prefix;
    message.header.family = family(address);
    message.header.flags = AddressHeaderFlags::Permanent;
    message.attributes.push(AddressAttribute::Address(address));
    if address.is_ipv4() {
        message.attributes.push(AddressAttribute::Local(address));
    }
    message
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(Ipv4Addr { .. }) => AddressFamily::Inet,
        IpAddr::V6(Ipv6Addr { .. }) => AddressFamily::Inet6,
    }
}
