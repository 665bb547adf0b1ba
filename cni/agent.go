package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

const largest = 4 << 20 // bytes of a request or an answer

// How long is waited; variables so that tests needn't wait as long.
var (
	retryPause    = 100 * time.Millisecond
	connectWait   = 2 * time.Second // while the agent's backlog is full: it is there, but busy
	shortestAsk   = 5 * time.Second // an agent that comes, or is there, gets at least this long to answer
	checkWait     = 5 * time.Second
	statusAnswer  = 5 * time.Second
	delAnswer     = 30 * time.Second // the kernel's own deletion of 250 pods at once takes 6 s
	gcAnswer      = 30 * time.Second
	connectPauses = 5 * time.Millisecond
)

// request is what the agent gets: one JSON object, then the end of the stream.
type request struct {
	Command     string          `json:"command"`
	ContainerID string          `json:"containerID"`
	Netns       string          `json:"netns"`
	IfName      string          `json:"ifname"`
	Args        string          `json:"args"`
	Path        string          `json:"path"`
	Config      json.RawMessage `json:"config"`
	Timeout     float64         `json:"timeout"` // seconds left until this program gives up
}

// answer is what the agent says: a result, null for all but ADD, or an error.
type answer struct {
	Result json.RawMessage `json:"result"`
	Error  *types.Error    `json:"error"`
}

// away is an agent of which nothing was heard: asking again does no harm.
type away struct {
	socket string
	cause  error
}

func (a *away) Error() string { return fmt.Sprintf("%s: %s", a.socket, a.cause) }

func isAway(err error) bool {
	var a *away
	return errors.As(err, &a)
}

// agent is where the node's agent listens.
type agent struct{ socket string }

func newRequest(command string, args *skel.CmdArgs) request {
	return request{command, args.ContainerID, args.Netns, args.IfName, args.Args, args.Path, args.StdinData, 0}
}

// askUntil asks again and again while the agent is away; when it still is at the end, that is the error TryAgainLater.
func (a agent) askUntil(r request, until time.Time) (json.RawMessage, error) {
	began := time.Now()
	for {
		result, err := a.ask(r, latest(until, time.Now().Add(shortestAsk)))
		if !isAway(err) {
			return result, err
		}
		if time.Now().Add(retryPause).After(until) {
			waited := time.Since(began).Seconds()
			return nil, tryLater(fmt.Sprintf("Tortie's agent on this node doesn't answer, waited %.1f s", waited), err)
		}
		time.Sleep(retryPause)
	}
}

// ask sends a request once and returns the agent's result; nothing heard is the error away.
func (a agent) ask(r request, until time.Time) (json.RawMessage, error) {
	r.Timeout = time.Until(until).Seconds()
	text, err := json.Marshal(r)
	if err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "the request can't be written as JSON: "+err.Error(), inFile)
	}
	if len(text) > largest {
		return nil, invalid("the whole", fmt.Sprintf("makes a request of %d bytes", len(text)), "4 MiB is the most")
	}
	said, err := a.exchange(text, until)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, tryLater(
			fmt.Sprintf("Tortie's agent on this node took %s but gave no answer in %.1f s", r.Command, r.Timeout), err)
	}
	if err != nil {
		return nil, &away{a.socket, err}
	}
	return understood(said)
}

// exchange sends the text, says that it ends, and returns what comes back until the agent closes.
func (a agent) exchange(text []byte, until time.Time) ([]byte, error) {
	connection, err := a.connect()
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	if err := connection.SetDeadline(until); err != nil {
		return nil, err
	}
	if _, err := connection.Write(text); err != nil {
		return nil, err
	}
	if err := connection.CloseWrite(); err != nil {
		return nil, err
	}
	said, err := io.ReadAll(io.LimitReader(connection, largest))
	if err == nil && len(said) == 0 {
		err = errors.New("closed without an answer")
	}
	return said, err
}

// connect tries again for a moment while the backlog is full, which connect(2) says as EAGAIN on a non-blocking socket.
func (a agent) connect() (*net.UnixConn, error) {
	until := time.Now().Add(connectWait)
	for {
		connection, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: a.socket, Net: "unix"})
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(until) {
			return connection, err
		}
		time.Sleep(connectPauses)
	}
}

// understood returns the result in an answer, or the error that it holds.
func understood(said []byte) (json.RawMessage, error) {
	var a answer
	if err := json.Unmarshal(said, &a); err != nil {
		return nil, misunderstood(said, err.Error())
	}
	if a.Error != nil {
		return nil, a.Error
	}
	if a.Result == nil {
		return nil, misunderstood(said, "neither result nor error")
	}
	return a.Result, nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
