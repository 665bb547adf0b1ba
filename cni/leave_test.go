package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ownNetwork puts the test into a network namespace of its own, which ends with its thread.
func ownNetwork(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked, so that nobody else gets the thread
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace can be made: %s; run it as root", err)
	}
}

// must fails the test at the first error.
func must(t *testing.T, failures ...error) {
	t.Helper()
	if err := errors.Join(failures...); err != nil {
		t.Fatal(err)
	}
}

// pod makes the link of a container, as the agent does.
func pod(t *testing.T, container string) *skel.CmdArgs {
	t.Helper()
	args := &skel.CmdArgs{ContainerID: container, IfName: "eth0"}
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.Group = hostName(args), linkGroup
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: "peer-" + container}))
	return args
}

// blackhole makes the route of a block, as the agent does.
func blackhole(t *testing.T, cidr string) {
	t.Helper()
	_, block, err := net.ParseCIDR(cidr)
	must(t, err, netlink.RouteAdd(&netlink.Route{Dst: block, Type: unix.RTN_BLACKHOLE, Protocol: routeProtocol}))
}

// bird makes a route as a BIRD does.
func bird(t *testing.T, cidr string, metric int) {
	t.Helper()
	_, block, err := net.ParseCIDR(cidr)
	route := &netlink.Route{Dst: block, Type: unix.RTN_BLACKHOLE, Protocol: unix.RTPROT_BIRD, Priority: metric}
	must(t, err, netlink.RouteAdd(route))
}

// tunnel makes a link with a tunnel's name, and a route of another node's block through it; which kind it is doesn't matter here.
func tunnel(t *testing.T, name, block string) {
	t.Helper()
	attributes := netlink.NewLinkAttrs()
	attributes.Name = name
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: "far-" + name[:4]}))
	link, err := netlink.LinkByName(name)
	must(t, err, netlink.LinkSetUp(link))
	_, to, err := net.ParseCIDR(block)
	route := &netlink.Route{Dst: to, LinkIndex: link.Attrs().Index, Scope: unix.RT_SCOPE_LINK, Protocol: routeProtocol}
	must(t, err, netlink.RouteAdd(route))
}

func isLink(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

func routesLeft(t *testing.T) int {
	t.Helper()
	routes, err := ownRoutes()
	must(t, err)
	return len(routes)
}

// files makes so many files in the order in which they are to be removed.
func files(t *testing.T, names ...string) []string {
	t.Helper()
	folder := t.TempDir()
	for i, name := range names {
		names[i] = filepath.Join(folder, name)
		must(t, os.WriteFile(names[i], nil, 0o600))
	}
	return names
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestTheLastPodsDelRemovesWhatIsLeft(t *testing.T) {
	ownNetwork(t)
	first, second := pod(t, "one"), pod(t, "two")
	blackhole(t, "10.1.0.0/26")
	blackhole(t, "fd00::/122")
	bird(t, "10.1.1.0/26", birdMetric)
	bird(t, "fd00::1:0/122", birdMetric)
	bird(t, "10.9.0.0/26", 32) // another BIRD's
	tunnel(t, "vxlan.tortie", "10.1.0.64/26")
	tunnel(t, "tunl.tortie", "10.1.0.128/26")
	remove := files(t, "tortie", "conflist")
	must(t, leave(first, remove))
	if routesLeft(t) != 6 || !isLink("vxlan.tortie") || !isLink("tunl.tortie") || !exists(remove[0]) || !exists(remove[1]) {
		t.Fatal("a pod is left, and what it needs is gone")
	}
	must(t, leave(second, remove))
	if routesLeft(t) != 0 || isLink("vxlan.tortie") || isLink("tunl.tortie") || exists(remove[0]) || exists(remove[1]) {
		t.Error("something is left")
	}
	if others, err := routesOf(unix.RTPROT_BIRD); err != nil || len(others) != 1 {
		t.Errorf("another BIRD's route: %v %v", others, err)
	}
	must(t, leave(second, remove)) // the runtime asks again
}

func TestRoutesThatAnotherDelRemovedMeanwhileAreFine(t *testing.T) {
	ownNetwork(t)
	blackhole(t, "10.1.0.0/26")
	blackhole(t, "fd00::/122")
	seenByBoth, err := ownRoutes()
	must(t, err, removeRoutes(seenByBoth), removeRoutes(seenByBoth))
	if routesLeft(t) != 0 {
		t.Error("routes are left")
	}
}

func TestALinkThatIsGoneIsFine(t *testing.T) {
	ownNetwork(t)
	must(t, removeLink("cali0123456789a"))
}

func TestAfterAFailureTheConfigurationStaysSoThatTheRuntimeAsksAgain(t *testing.T) {
	ownNetwork(t)
	last := pod(t, "one")
	remove := files(t, "tortie", "conflist")
	blocked := []string{filepath.Dir(remove[0]) + "/.", remove[1]} // os.RemoveAll refuses a path that ends so
	if err := leave(last, blocked); codeOf(t, err) != 5 {
		t.Errorf("got %v", err)
	}
	if !exists(remove[1]) {
		t.Error("nobody will ask again")
	}
	must(t, leave(last, remove))
	if exists(remove[0]) || exists(remove[1]) {
		t.Error("something is left")
	}
}

func TestARouteThatCannotBeRemovedIsAFailure(t *testing.T) {
	ownNetwork(t)
	if err := removeRoutes([]netlink.Route{{}}); err == nil { // a route to nowhere, which netlink refuses
		t.Error("no error")
	}
}

func TestAListThatWasInterruptedIsAskedForAgain(t *testing.T) {
	asked := 0
	count, err := whole(func() (int, error) {
		asked++
		if asked < 3 {
			return 0, netlink.ErrDumpInterrupted
		}
		return 7, nil
	})
	if count != 7 || err != nil || asked != 3 {
		t.Errorf("got %d, %v after %d", count, err, asked)
	}
	always := func() (int, error) { return 0, netlink.ErrDumpInterrupted }
	if _, err := whole(always); !errors.Is(err, netlink.ErrDumpInterrupted) {
		t.Errorf("got %v", err)
	}
}
