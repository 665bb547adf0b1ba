package main

import (
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// fakeAgent is a real server on a unix socket. It treats each connection as the next of its manners says, the last one for ever.
type fakeAgent struct {
	socket   string
	mutex    sync.Mutex
	requests []map[string]any
}

// manner treats one connection.
type manner func(f *fakeAgent, connection *net.UnixConn)

// says is an agent that hears the whole request and answers.
func says(answer string) manner {
	return func(f *fakeAgent, connection *net.UnixConn) {
		f.hear(connection)
		_, _ = io.WriteString(connection, answer)
	}
}

// hangsUp is an agent that dies before it answers.
func hangsUp(f *fakeAgent, connection *net.UnixConn) { f.hear(connection) }

// hangsUpAtOnce is one that dies before it hears.
func hangsUpAtOnce(*fakeAgent, *net.UnixConn) {}

// hangs is an agent that hears and does nothing, until the other side has enough.
func hangs(f *fakeAgent, connection *net.UnixConn) {
	f.hear(connection)
	for {
		if _, err := connection.Write([]byte(" ")); err != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (f *fakeAgent) hear(connection *net.UnixConn) {
	var request map[string]any
	text, err := io.ReadAll(connection)
	if err != nil || json.Unmarshal(text, &request) != nil {
		request = map[string]any{"not a request": string(text)}
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.requests = append(f.requests, request)
}

// heard returns the requests up to now.
func (f *fakeAgent) heard() []map[string]any {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return append([]map[string]any(nil), f.requests...)
}

func listen(t *testing.T, socket string, manners ...manner) *fakeAgent {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeAgent{socket: socket}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			connection, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			manners[0](f, connection)
			_ = connection.Close()
			if len(manners) > 1 {
				manners = manners[1:]
			}
		}
	}()
	t.Cleanup(func() { _ = listener.Close(); <-done })
	return f
}

func socketIn(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "agent.sock")
}
