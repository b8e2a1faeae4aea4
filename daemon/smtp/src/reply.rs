//! Every reply of the receiving machine, each text once, and how a reply is written.
