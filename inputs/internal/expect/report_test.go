package expect

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin/plugintest/schematest"
)

const audited = `
[[expect]]
name = "web"
port = [80, 443]
process = "nginx"
why = "public site"
ticket = "OPS-1"
approved_by = "jane"
expires = "2026-12-01"
[[expect]]
name = "dns"
port = 53
process = "named"
[[allow]]
name = "ssh"
port = 22
expires = "2026-11-01"
[[forbid]]
name = "telnet"
port = 23
why = "clear text"
`

func TestReportNamesTheNearestRuleAndWhatDiffers(t *testing.T) {
	r := compile(t, audited)
	report := NewReport(r, []*Listener{
		nginx(8443), nginx(80), nginx(443, at("127.0.0.1"), by("httpd")), nginx(23, by("in.telnetd")), nginx(53, unreadable), nginx(22, by("sshd")),
	}, now)
	want := `missing     web: port 443: 0 of 1 endpoints; nearest 127.0.0.1:443 of httpd: process httpd is not nginx (public site)
forbidden   0.0.0.0:23 of in.telnetd (root, in.telnetd.service): matches forbid rule telnet: clear text
unexpected  0.0.0.0:22 of sshd (root, sshd.service): 2026-11-01 was the last day of rule ssh
unexpected  127.0.0.1:443 of httpd (root, httpd.service): process httpd is not nginx of rule web
unexpected  0.0.0.0:8443 of nginx (root, nginx.service): port 8443 is not in 80,443 of rule web
undecided   dns: port 53: 0 of 1 endpoints, 1 undecided; nearest 0.0.0.0:53: process is not known to be named
undecided   0.0.0.0:53 (root, nginx.service): process is not known to be named of rule dns
expiring    expect rule web: 2026-12-01 is the last day of its approval
expired     allow rule ssh: 2026-11-01 was the last day of its approval
6 listeners, 4 rules (digest ` + r.Digest() + `): 1 missing, 1 forbidden, 3 unexpected, 2 undecided
`
	if diff := cmp.Diff(want, report.Text()); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	if report.OK {
		t.Error("it is ok")
	}
}

// The readers of a report do not need to distinguish empty lists from null.
func TestReportHasEmptyListsAndNoNulls(t *testing.T) {
	report := NewReport(compile(t, "[[allow]]\nport = 22"), nil, now)
	report.ListenerSource, report.OwnerSource = "netlink", "procfs"
	text, err := report.JSON()
	if err != nil {
		t.Fatal(err)
	}
	schematest.Report(t, text)
	if !strings.Contains(string(text), `"expiring":[]`) || strings.Contains(string(text), "null") {
		t.Errorf("%s", text)
	}
}

func TestReportIsAnArtifactOfAnAudit(t *testing.T) {
	r := compile(t, audited)
	report := NewReport(r, []*Listener{nginx(80), nginx(80), nginx(23, by("nc"))}, now)
	report.Host, report.MachineID, report.BootID, report.Input = "web1", "m", "b", "tcp_listen"
	report.ListenerSource, report.OwnerSource = "netlink", "bpf"
	text, err := report.JSON()
	if err != nil {
		t.Fatal(err)
	}
	schematest.Report(t, text)
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"host": "web1", "machine_id": "m", "boot_id": "b", "input": "tcp_listen",
		"listener_source": "netlink", "owner_source": "bpf", "time": "2026-11-26T12:00:00Z", "digest": r.Digest(), "ok": false,
		"rules": []any{
			map[string]any{"rule": "telnet", "kind": "forbid", "outcome": "violated", "matches": 1., "undecided": 0., "justification": "clear text"},
			map[string]any{"rule": "web", "kind": "expect", "outcome": "missing", "matches": 1., "undecided": 0.,
				"why":           "port 443: 0 of 1 endpoints; nearest 0.0.0.0:80 of nginx: port 80 is not 443",
				"justification": "public site", "ticket": "OPS-1", "approved_by": "jane", "expires": "2026-12-01"},
			map[string]any{"rule": "dns", "kind": "expect", "outcome": "missing", "matches": 0., "undecided": 0., "why": "port 53: 0 of 1 endpoints"},
			map[string]any{"rule": "ssh", "kind": "allow", "outcome": "", "matches": 0., "undecided": 0., "expires": "2026-11-01"},
		},
		"listeners": []any{
			map[string]any{"verdict": "forbidden", "rule": "telnet", "why": "matches forbid rule telnet: clear text", "exe": "/usr/bin/nc",
				"tags": map[string]any{"address": "0.0.0.0", "port": "23", "family": "ipv4", "exposure": "public", "user": "root", "unit": "nc.service", "process": "nc", "owner": "resolved"}},
			map[string]any{"verdict": "yes", "rule": "web", "why": "matches rule web: public site", "exe": "/usr/sbin/nginx",
				"tags": map[string]any{"address": "0.0.0.0", "port": "80", "family": "ipv4", "exposure": "public", "user": "root", "unit": "nginx.service", "process": "nginx", "owner": "resolved"}},
		},
		"expiring": []any{
			map[string]any{"kind": "expect", "rule": "web", "expires": "2026-12-01", "expired": false},
			map[string]any{"kind": "allow", "rule": "ssh", "expires": "2026-11-01", "expired": true},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

func TestReportOfAHostInOrder(t *testing.T) {
	r := compile(t, "[[expect]]\nname = 'web'\nport = 80\n[[allow]]\nport = 22")
	report := NewReport(r, []*Listener{nginx(80), nginx(22)}, now)
	if want := "2 listeners, 2 rules (digest " + r.Digest() + "): ok\n"; report.Text() != want || !report.OK {
		t.Errorf("ok %v: %s, want %s", report.OK, report.Text(), want)
	}
}

// Sockets that share a point get the worst verdict among them.
func TestReportShowsTheWorstOfAPoint(t *testing.T) {
	r := compile(t, "[[allow]]\nexe = '/usr/sbin/nginx'")
	bad := nginx(80, held(Holder{Process: "nginx", Exe: "/tmp/nginx", Unit: "nginx.service"}))
	report := NewReport(r, []*Listener{nginx(80), bad, nginx(80)}, now)
	if len(report.Listeners) != 1 || report.Listeners[0].Verdict != No || report.Listeners[0].Exe != "/tmp/nginx" {
		t.Errorf("listeners %+v", report.Listeners)
	}
}

// After an incomplete scan, no host is reported as OK.
func TestReportOfAnIncompleteScan(t *testing.T) {
	r := compile(t, "[[allow]]\nport = 80")
	report := NewReport(r, []*Listener{nginx(80)}, now)
	report.SetIncomplete("netns web: cannot be listed")
	want := "incomplete  netns web: cannot be listed\n1 listener, 1 rule (digest " + r.Digest() + "): incomplete\n"
	if diff := cmp.Diff(want, report.Text()); diff != "" || report.OK {
		t.Errorf("ok %v (-want +got):\n%s", report.OK, diff)
	}
}

// A program that has taken another's port is compared with the rule for that port, even if a
// rule for another port has more in common with it. A rule for a wide range does not count as
// a rule for that port.
func TestNearestRuleIsOneAboutThePort(t *testing.T) {
	r := compile(t, `
unlisted = "unexpected"
[[expect]]
name = "web"
port = 80
process = "nginx"
user = "www-data"
[[expect]]
name = "proxy"
port = 8080
process = "haproxy"
user = "root"
[[allow]]
name = "java"
port = "1024-65535"
process = "java"
`)
	report := NewReport(r, []*Listener{nginx(80, by("haproxy")), nginx(8443, by("haproxy"))}, now)
	want := `missing     web: port 80: 0 of 1 endpoints; nearest 0.0.0.0:80 of haproxy: process haproxy is not nginx and user root is not www-data
missing     proxy: port 8080: 0 of 1 endpoints; nearest 0.0.0.0:80 of haproxy: port 80 is not 8080
unexpected  0.0.0.0:80 of haproxy (root, haproxy.service): process haproxy is not nginx and user root is not www-data of rule web
unexpected  0.0.0.0:8443 of haproxy (root, haproxy.service): port 8443 is not 8080 of rule proxy
2 listeners, 3 rules (digest ` + r.Digest() + `): 2 missing, 2 unexpected
`
	if diff := cmp.Diff(want, report.Text()); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

// Most listeners have the user root, a wildcard address or a wide range of ports in common. A
// rule that matches nothing else is not near.
func TestRuleOfManyListenersIsNotNear(t *testing.T) {
	r := compile(t, `
unlisted = "unexpected"
[[allow]]
name = "ssh"
port = 22
address = "0.0.0.0"
user = "root"
process = "sshd"
[[allow]]
name = "java"
port = "1024-65535"
process = "java"
[[allow]]
name = "bob"
address = "10.0.0.0/8"
user = "bob"
`)
	report := NewReport(r, []*Listener{nginx(8080), nginx(8081, at("10.1.2.3"))}, now)
	want := `unexpected  0.0.0.0:8080 of nginx (root, nginx.service): no rule comes close: none names this port, process, program, unit or container
unexpected  10.1.2.3:8081 of nginx (root, nginx.service): user root is not bob of rule bob
2 listeners, 3 rules (digest ` + r.Digest() + `): 2 unexpected
`
	if diff := cmp.Diff(want, report.Text()); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}
