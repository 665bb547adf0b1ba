package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

var someArgs = &skel.CmdArgs{
	ContainerID: "c1", Netns: "/run/netns/a", IfName: "eth0", Args: "K8S_POD_NAME=web-0", Path: "/opt/cni/bin",
	StdinData: []byte(`{"name": "n", "cniVersion": "1.0.0", "cni.dev/valid-attachments": [], "ours": {"ä": 1}}`),
}

func codeOf(t *testing.T, err error) uint {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) {
		t.Fatalf("not an error of CNI: %v", err)
	}
	return e.Code
}

func TestARequestIsCarriedWhole(t *testing.T) {
	f := listen(t, socketIn(t), says(`{"result": null}`))
	before := time.Now()
	if _, err := (agent{f.socket}).ask(newRequest("CHECK", someArgs), before.Add(7*time.Second)); err != nil {
		t.Fatal(err)
	}
	got := f.heard()[0]
	if timeout := got["timeout"].(float64); timeout > 7 || timeout < 7-time.Since(before).Seconds() {
		t.Errorf("timeout %v", timeout)
	}
	delete(got, "timeout")
	text, _ := json.Marshal(got)
	want := `{"args":"K8S_POD_NAME=web-0","command":"CHECK","config":{"cni.dev/valid-attachments":[],"cniVersion":"1.0.0",` +
		`"name":"n","ours":{"ä":1}},"containerID":"c1","ifname":"eth0","netns":"/run/netns/a","path":"/opt/cni/bin"}`
	if string(text) != want {
		t.Errorf("\n got %s\nwant %s", text, want)
	}
}

func TestWhatTheAgentSays(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for _, row := range []struct {
		name, said, result string
		code               uint
	}{
		{"nothing to say", `{"result": null}`, "null", 0},
		{"a result", `{"result": {"ips": []}}`, `{"ips": []}`, 0},
		{"an error", `{"error": {"code": 11, "msg": "no address", "details": "d"}}`, "", 11},
		{"an error of ours", `{"error": {"code": 107, "msg": "m"}}`, "", 107},
		{"result and no error", `{"result": {}, "error": null}`, "{}", 0},
		{"neither", `{}`, "", errMisunderstood},
		{"no JSON", `sorry`, "", errMisunderstood},
		{"half of it", `{"result": {"ips`, "", errMisunderstood},
		{"no object", `[1]`, "", errMisunderstood},
		{"a code that is none", `{"error": {"code": -1, "msg": "m"}}`, "", errMisunderstood},
		{"long", `{"result": "` + long + `"}`, `"` + long + `"`, 0},
		{"too long", `{"result": "` + strings.Repeat(long, 4) + `"}`, "", errMisunderstood},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := listen(t, socketIn(t), says(row.said))
			result, err := agent{f.socket}.ask(newRequest("ADD", someArgs), time.Now().Add(time.Minute))
			if row.code == 0 && (err != nil || string(result) != row.result) {
				t.Errorf("got %.100s, %v", result, err)
			}
			if row.code != 0 && codeOf(t, err) != row.code {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAnAgentThatDiesIsAskedAgain(t *testing.T) {
	f := listen(t, socketIn(t), hangsUpAtOnce, hangsUp, hangsUp, says(`{"result": 1}`))
	result, err := agent{f.socket}.askUntil(newRequest("ADD", someArgs), time.Now().Add(time.Minute))
	if err != nil || string(result) != "1" {
		t.Errorf("got %s, %v", result, err)
	}
	if heard := len(f.heard()); heard != 3 {
		t.Errorf("heard %d requests", heard)
	}
}

func TestAnAgentThatStaysAwayIsTryAgainLater(t *testing.T) {
	socket := socketIn(t)
	_, err := agent{socket}.askUntil(newRequest("ADD", someArgs), time.Now())
	if codeOf(t, err) != types.ErrTryAgainLater || !strings.Contains(err.Error(), socket) {
		t.Errorf("got %v", err)
	}
}

func TestAnAgentThatHangsIsTryAgainLaterAndNotAway(t *testing.T) {
	f := listen(t, socketIn(t), hangs)
	_, err := agent{f.socket}.ask(newRequest("DEL", someArgs), time.Now().Add(20*time.Millisecond))
	if codeOf(t, err) != types.ErrTryAgainLater || !strings.Contains(err.Error(), "took DEL but gave no answer") {
		t.Errorf("got %v", err)
	}
}

func TestAFullBacklogIsTriedAgainWhileThereIsTime(t *testing.T) {
	socket := socketIn(t)
	server, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		err = errors.Join(syscall.Bind(server, &syscall.SockaddrUnix{Name: socket}), syscall.Listen(server, 0))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(server)
	first, err := agent{socket}.connect() // fills the backlog of a server that doesn't accept
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	defer func(before time.Duration) { connectWait = before }(connectWait)
	connectWait = 0
	if _, err := (agent{socket}).connect(); !errors.Is(err, syscall.EAGAIN) {
		t.Fatalf("the backlog isn't full: %v", err)
	}
	connectWait = time.Minute
	go func() {
		if accepted, _, err := syscall.Accept(server); err == nil {
			_ = syscall.Close(accepted)
		}
	}()
	second, err := agent{socket}.connect()
	if err != nil {
		t.Fatal(err)
	}
	_ = second.Close()
}

func TestARequestThatIsTooLargeIsNotSent(t *testing.T) {
	args := *someArgs
	args.StdinData = fmt.Appendf(nil, `{"name": "n", "x": "%s"}`, strings.Repeat("x", largest))
	_, err := agent{socketIn(t)}.ask(newRequest("ADD", &args), time.Now())
	if codeOf(t, err) != types.ErrInvalidNetworkConfig {
		t.Errorf("got %.200v", err)
	}
}
