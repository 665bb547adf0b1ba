module tortie.dev/cni

go 1.24

require (
	github.com/containernetworking/cni v1.3.1
	github.com/vishvananda/netlink v1.3.1
	golang.org/x/sys v0.23.0
)

require github.com/vishvananda/netns v0.0.5 // indirect
