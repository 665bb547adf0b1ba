//go:build tools

// Package commands pins the cnitool with which tests drive the plugin through libcni, as a runtime does.
package commands

import _ "github.com/containernetworking/cni/cnitool"
