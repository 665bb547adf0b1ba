package main

import (
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

func TestDefaults(t *testing.T) {
	c, err := decode([]byte(`{"cniVersion": "1.0.0", "name": "n", "something": "else"}`))
	if err != nil {
		t.Fatal(err)
	}
	got := []any{c.Socket, c.Deferred, c.wait(), c.wasReady()}
	want := []any{"/run/tortie/agent.sock", "/var/lib/tortie/deferred", time.Minute, "/run/tortie/was-ready"}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %v, want %v", got[i], want[i])
		}
	}
}

func TestSetting(t *testing.T) {
	c, err := decode([]byte(`{"socket": "/a/b", "deferred": "/c", "waitSeconds": 0.25}`))
	if err != nil || c.Socket != "/a/b" || c.Deferred != "/c" || c.wait() != 250*time.Millisecond || c.wasReady() != "/a/was-ready" {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestErrorsNameFieldValueAndTheWayOut(t *testing.T) {
	for _, row := range []struct {
		stdin, says, wayOut string
		code                uint
	}{
		{`{"waitSeconds": "5"}`, "waitSeconds in the network configuration is of type string", "must be of type number", 7},
		{`{"waitSeconds": -1}`, "waitSeconds in the network configuration is -1", "from 0 (don't wait) to 3600", 7},
		{`{"waitSeconds": 3601}`, "waitSeconds in the network configuration is 3601", "from 0", 7},
		{`{"socket": 7}`, "socket in the network configuration is of type number", "must be of type string", 7},
		{`{"socket": "a.sock"}`, `socket in the network configuration is "a.sock"`, "absolute path", 7},
		{`{"socket": ""}`, `socket in the network configuration is ""`, "leave it out", 7},
		{`{"socket": "/` + strings.Repeat("s", 107) + `"}`, "108 bytes", "107 bytes at most", 7},
		{`{"deferred": "x"}`, `deferred in the network configuration is "x"`, "absolute path", 7},
		{`{"prevResult": []}`, "prevResult in the network configuration is of type array", "must be of type object", 7},
		{"{\"name\": \"\xff\"}", "isn't UTF-8", "10-tortie.conflist", 6},
	} {
		_, err := decode([]byte(row.stdin))
		if codeOf(t, err) != row.code || !strings.Contains(err.Error(), row.says) || !strings.Contains(err.Error(), row.wayOut) {
			t.Errorf("%.60s: got %v", row.stdin, err)
		}
	}
}

func TestExplained(t *testing.T) {
	t.Setenv("CNI_COMMAND", "ADD")
	t.Setenv("CNI_IFNAME", strings.Repeat("é", 200))
	for _, row := range []struct {
		name    string
		given   *types.Error
		stdin   string
		code    uint
		details []string
	}{
		{"environment", types.NewError(4, "m", ""), "", 4, []string{`CNI_IFNAME="éé`, "(400 bytes)", `CNI_NETNS=""`, "runtime sets"}},
		{"version", types.NewError(1, "m", ""), `{"cniVersion": "9.9.9"}`, 1, []string{`cniVersion "9.9.9"`, "0.3.1, 0.4.0", "for ADD"}},
		{"no version", types.NewError(1, "m", ""), `{}`, 1, []string{"cniVersion (missing)"}},
		{"version that is no number", types.NewError(6, `failed to convert major version part "x": y`, ""), `{"cniVersion":"x"}`, 1, []string{`"x"`}},
		{"version of four parts", types.NewError(6, `invalid version "1.1.1.1": too many parts`, ""), `{}`, 1, nil},
		{"JSON", types.NewError(6, "m", "d"), "garb\x00age", 6, []string{"d; stdin is", `"garb\x00age"`, "conflist"}},
		{"without end", types.NewError(6, "m", ""), strings.Repeat(" ", largest+1), 7, []string{"larger than 4 MiB"}},
		{"another", types.NewError(5, "m", "d"), "", 5, []string{"m; d"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			e := explained(row.given, []byte(row.stdin))
			if e.Code != row.code {
				t.Errorf("code %d", e.Code)
			}
			for _, part := range row.details {
				if !strings.Contains(e.Error(), part) {
					t.Errorf("%q isn't in %q", part, e.Error())
				}
			}
		})
	}
}
