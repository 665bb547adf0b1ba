package main

import (
	"bytes"
	"encoding/json"
	"testing"
)

const fromAgent = `{"interfaces": [{"name": "cali0", "mac": "ee:ee:ee:ee:ee:ee"}, {"name": "eth0", "sandbox": "/n"}],
	"ips": [{"address": "10.1.0.7/32", "gateway": "169.254.1.1", "interface": 1}, {"address": "fd00::7/128", "interface": 1}],
	"routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]}`

func flat(t *testing.T, text string) string {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatal(err)
	}
	flat, _ := json.Marshal(value)
	return string(flat)
}

func TestConvert(t *testing.T) {
	interfaces := `"interfaces": [{"name": "cali0", "mac": "ee:ee:ee:ee:ee:ee"}, {"name": "eth0", "sandbox": "/n"}],
		"routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]`
	ips := `"ips": [{"address": "10.1.0.7/32", "gateway": "169.254.1.1", "interface": 1},
		{"address": "fd00::7/128", "interface": 1}], ` + interfaces
	versioned := `"ips": [{"version": "4", "address": "10.1.0.7/32", "gateway": "169.254.1.1", "interface": 1},
		{"version": "6", "address": "fd00::7/128", "interface": 1}], "dns": {}, ` + interfaces
	chained := `"interfaces": [{"name": "lo"}, {"name": "cali0", "mac": "ee:ee:ee:ee:ee:ee"}, {"name": "eth0", "sandbox": "/n"}],
		"ips": [{"address": "127.0.0.1/8", "interface": 0}, {"address": "10.1.0.7/32", "gateway": "169.254.1.1", "interface": 2},
		{"address": "fd00::7/128", "interface": 2}], "dns": {"domain": "d"}, "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]`
	previous := `{"cniVersion": "1.0.0", "interfaces": [{"name": "lo"}], "ips": [{"address": "127.0.0.1/8", "interface": 0}],
		"dns": {"domain": "d"}}`
	for _, row := range []struct{ name, version, prevResult, want string }{
		{"0.3.1", "0.3.1", "null", versioned},
		{"0.4.0", "0.4.0", "null", versioned},
		{"1.0.0", "1.0.0", "null", ips},
		{"1.1.0", "1.1.0", "null", ips},
		{"after another plugin", "1.0.0", previous, chained},
	} {
		t.Run(row.name, func(t *testing.T) {
			config, err := decode([]byte(`{"cniVersion": "` + row.version + `", "prevResult": ` + row.prevResult + `}`))
			if err != nil {
				t.Fatal(err)
			}
			result, err := convert(json.RawMessage(fromAgent), config)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if err := result.PrintTo(&got); err != nil {
				t.Fatal(err)
			}
			if want := flat(t, `{"cniVersion": "`+row.version+`", `+row.want+`}`); flat(t, got.String()) != want {
				t.Errorf("\n got %s\nwant %s", flat(t, got.String()), want)
			}
		})
	}
}

func TestResultsThatAreNone(t *testing.T) {
	config := &config{CNIVersion: "1.0.0"}
	for _, raw := range []string{`null`, `[]`, `{"ips": [{"address": "10.1.0.7"}]}`, `{"ips": 5}`} {
		_, err := convert(json.RawMessage(raw), config)
		if codeOf(t, err) != errMisunderstood {
			t.Errorf("%s: got %v", raw, err)
		}
	}
	config.PrevResult = map[string]any{"ips": 5.0}
	if _, err := convert(json.RawMessage(fromAgent), config); codeOf(t, err) != 7 {
		t.Errorf("got %v", err)
	}
}
