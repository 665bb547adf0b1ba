package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What the agent marks its links and routes with (operator/tortie/agent/wire.py).
const (
	linkGroup     = 0x746f7274
	routeProtocol = 201
)

// What its BIRD marks routes with, beside its own protocol number (operator/tortie/routing/bird.py): another BIRD's have another
// metric.
const birdMetric = 768

// The tunnels' names (operator/tortie/agent/wire.py). What leads through them goes with them.
var tunnels = []string{"vxlan.tortie", "tunl.tortie"}

// How often a list that was interrupted is asked for again. Pods' links come and go by the hundred, within seconds.
const listings = 20

// uninstalled is the answer to what a node without Tortie can't do any more.
func uninstalled(code uint) error {
	return types.NewError(code, "Tortie was uninstalled from this cluster, and pods here have no other network plugin",
		"install one, or Tortie again; pods that run keep their network until they are deleted")
}

// leave does a DEL after Tortie was uninstalled: no agent will come. The last pod's DEL removes all that is left of Tortie; of
// two at once both may be the last, so what is gone already is fine. It stops at the first failure: as long as the
// configuration is there, which is the last of remove, the runtime asks again.
func leave(args *skel.CmdArgs, remove []string) error {
	if err := removeLink(hostName(args)); err != nil {
		return types.NewError(types.ErrIOFailure, "the pod's link can't be removed: "+err.Error(), "the runtime tries again")
	}
	if err := removeRest(remove); err != nil {
		return types.NewError(types.ErrIOFailure, "what is left of Tortie on this node can't be removed: "+err.Error(),
			"the runtime tries again; if it says so for long, look at the node's disk")
	}
	return nil
}

func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if errors.As(err, new(netlink.LinkNotFoundError)) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// removeRest removes routes, tunnels and files, in their order, if no pod has a link any more.
func removeRest(remove []string) error {
	left, err := whole(links)
	if err != nil || left > 0 {
		return err
	}
	routes, err := whole(ownRoutes)
	if err != nil {
		return err
	}
	if err := removeRoutes(routes); err != nil {
		return err
	}
	for _, name := range tunnels {
		if err := removeLink(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, path := range remove {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// whole asks the kernel again when something changed while it listed: the list may lack some then.
func whole[T any](list func() (T, error)) (T, error) {
	found, err := list()
	for again := 0; again < listings && errors.Is(err, netlink.ErrDumpInterrupted); again++ {
		found, err = list()
	}
	return found, err
}

// hostName is the host's end of a pod's link, named as the agent names it.
func hostName(args *skel.CmdArgs) string {
	sum := sha256.Sum256([]byte(args.ContainerID + "/" + args.IfName))
	return "cali" + fmt.Sprintf("%x", sum)[:11]
}

// links is how many pods of ours still have a link.
func links() (int, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return 0, err
	}
	count := 0
	for _, link := range all {
		if link.Attrs().Group == linkGroup {
			count++
		}
	}
	return count, nil
}

func ownRoutes() ([]netlink.Route, error) {
	own, err := routesOf(routeProtocol)
	if err != nil {
		return nil, err
	}
	birds, err := routesOf(unix.RTPROT_BIRD)
	for _, route := range birds {
		if route.Priority == birdMetric {
			own = append(own, route)
		}
	}
	return own, err
}

func routesOf(protocol netlink.RouteProtocol) ([]netlink.Route, error) {
	filter := &netlink.Route{Protocol: protocol, Table: unix.RT_TABLE_MAIN}
	return netlink.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
}

func removeRoutes(routes []netlink.Route) error {
	for _, route := range routes {
		if err := netlink.RouteDel(&route); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("route to %s: %w", route.Dst, err)
		}
	}
	return nil
}
