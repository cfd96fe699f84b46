package expect

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin/plugintest/soak"
	"sockwatch/inputs/internal/inet"
)

var ephemeral = PortRange{32768, 60999}

func TestPrintedRules(t *testing.T) {
	systemd := Holder{Process: "systemd", Exe: "/usr/lib/systemd/systemd", Manager: true}
	listeners := []*Listener{
		nginx(80),
		nginx(80, at("::")),
		nginx(22, held(Holder{Process: "sshd", Exe: "/usr/sbin/sshd", Unit: "ssh.service"}, systemd)),
		nginx(631, held(systemd)),
		nginx(5432, at("127.0.0.1"), func(l *Listener) { l.User = "postgres" },
			held(Holder{Process: "postgres", Exe: "/usr/lib/postgresql/15/bin/postgres", Unit: "postgresql@15-main.service"})),
		nginx(8000, func(l *Listener) { l.User = "jane" }, held(Holder{Process: "python3", Exe: "/usr/bin/python3.11", Unit: "session-12.scope"})),
		nginx(9000, func(l *Listener) { l.Netns = "4026532281" },
			held(Holder{Process: "app", Exe: "/app", Unit: "docker-0123456789abcdef.scope", Container: "0123456789ab"})),
		nginx(41234, held(Holder{Process: "rpc.statd", Exe: "/usr/sbin/rpc.statd", Unit: "rpc-statd.service"})),
		nginx(50123, held(Holder{Process: "rpc.statd", Exe: "/usr/sbin/rpc.statd", Unit: "rpc-statd.service"})),
		nginx(50123, at("::"), held(Holder{Process: "rpc.statd", Exe: "/usr/sbin/rpc.statd", Unit: "rpc-statd.service"})),
		nginx(2049, none),
		nginx(3000, unreadable),
		nginx(4000, held(Holder{Process: `a*"b\x0a${C}`, Exe: "/tmp/[x]", Unit: "x.service"})),
	}
	want := `# What listens on this host now. Review it: what should not listen is listed, too.
# To have everything else reported, set unlisted = "unexpected" in [[inputs.tcp_listen]].

# Port 22 of 0.0.0.0: sshd, on a socket of the service manager
[[expect]]
name = "sshd-22"
port = 22
address = "0.0.0.0"
process = ["sshd", "systemd"]
exe = ["/usr/sbin/sshd", "/usr/lib/systemd/systemd"]
user = "root"

# Port 80 of 0.0.0.0: nginx of nginx.service
[[expect]]
name = "nginx-80-0.0.0.0"
port = 80
address = "0.0.0.0"
process = "nginx"
exe = "/usr/sbin/nginx"
user = "root"
unit = "nginx.service"

# Port 80 of [::]: nginx of nginx.service
[[expect]]
name = "nginx-80-::"
port = 80
address = "::"
process = "nginx"
exe = "/usr/sbin/nginx"
user = "root"
unit = "nginx.service"

# Port 631 of 0.0.0.0: systemd, on a socket of the service manager
[[expect]]
name = "systemd-631"
port = 631
address = "0.0.0.0"
process = "systemd"
exe = "/usr/lib/systemd/systemd"
user = "root"

# Port 2049 of 0.0.0.0: the kernel, or nobody who is known
[[expect]]
name = "port-2049"
port = 2049
address = "0.0.0.0"
user = "root"

# Port 3000 of 0.0.0.0: an owner that could not be read
[[expect]]
name = "port-3000"
port = 3000
address = "0.0.0.0"
user = "root"
unit = "nginx.service"

# Port 4000 of 0.0.0.0: a*"b\x0a${C} of x.service
[[expect]]
name = "a*\"b\\x0a$${C}-4000"
port = 4000
address = "0.0.0.0"
process = "a\\*\"b\\\\x0a$\\{C\\}"
exe = "/tmp/\\[x\\]"
user = "root"
unit = "x.service"

# Port 5432 of 127.0.0.1: postgres of postgresql@*.service
[[expect]]
name = "postgres-5432"
port = 5432
address = "127.0.0.1"
process = "postgres"
exe = "/usr/lib/postgresql/15/bin/postgres"
user = "postgres"
unit = "postgresql@*.service"

# Port 8000 of 0.0.0.0: python3
[[expect]]
name = "python3-8000"
port = 8000
address = "0.0.0.0"
process = "python3"
exe = "/usr/bin/python3.11"
user = "jane"

# Port 9000 of 0.0.0.0: app of docker-*.scope
[[expect]]
name = "app-9000"
port = 9000
address = "0.0.0.0"
process = "app"
exe = "/app"
user = "root"
unit = "docker-*.scope"

# Ephemeral ports: rpc.statd of rpc-statd.service
[[expect]]
name = "rpc.statd-ephemeral"
port = "32768-60999"
address = ["0.0.0.0", "::"]
process = "rpc.statd"
exe = "/usr/sbin/rpc.statd"
user = "root"
unit = "rpc-statd.service"
`
	got := Print(Suggest(listeners, ephemeral), "")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	if inline := Print(Suggest(listeners, ephemeral), "inputs.tcp_listen"); inline != strings.ReplaceAll(want, "[[expect]]", "[[inputs.tcp_listen.expect]]") {
		t.Errorf("inline form:\n%s", inline)
	}
}

func TestUnitsWithoutGeneratedParts(t *testing.T) {
	for unit, want := range map[string]string{
		"":                                      "",
		"nginx.service":                         "nginx.service",
		"user@1000.service":                     "user@*.service",
		"getty@tty1.service":                    "getty@*.service",
		"app-gnome-firefox-12345.scope":         "app-gnome-firefox-*.scope",
		"snap.lxd.daemon.service":               "snap.lxd.daemon.service",
		"cri-containerd-0123456789abcdef.scope": "cri-containerd-*.scope",
		"vte-spawn-2c1d9c8e-8a0b-4f6e-9c3d-0123456789ab.scope": "vte-spawn-*.scope",
		"session-3.scope":     "",
		"session-c1.scope":    "",
		"run-r1234abcd.scope": "",
		"run-u17.service":     "",
		`dev-disk\x2dx.mount`: `dev-disk\\x2dx.mount`,
		"odd":                 "odd",
	} {
		got := strings.Join(unitGlob(unit), "|")
		if got != want {
			t.Errorf("%s: %q, want %q", unit, got, want)
		}
	}
}

func TestNumberedProcessesShareAGlob(t *testing.T) {
	for process, want := range map[string]string{
		"python3": "python3", "php-fpm8.2": "php-fpm8.2", "worker-1": "worker-*", "job12": "job*", "w-12345": "w-*", "a-deadbeef01": "a-*", "12": "*",
	} {
		if got := (&Holder{Process: process}).names(); got[0] != want {
			t.Errorf("%s: %q, want %q", process, got[0], want)
		}
	}
}

// For random hosts, the generated rules hold, do not depend on the order of the listeners,
// and still hold after all services have been restarted.
func TestSuggestedRulesHoldAfterRestarts(t *testing.T) {
	for seed := range uint64(soak.Times(100)) {
		h := randomHost(seed)
		before := h.listeners()
		text := Print(Suggest(before, ephemeral), "")
		r := compile(t, strings.ReplaceAll("unlisted = 'unexpected'\n"+text, "$${", "${"))
		passes(t, seed, r, before)
		for range 3 {
			h.restart()
			after := h.listeners()
			passes(t, seed, r, after)
			if again := Print(Suggest(after, ephemeral), ""); again != text {
				t.Fatalf("seed %d: rules after a restart (-before +after):\n%s", seed, cmp.Diff(text, again))
			}
		}
	}
}

func passes(t *testing.T, seed uint64, r *Rules, listeners []*Listener) {
	t.Helper()
	if report := NewReport(r, listeners, now); !report.OK {
		t.Fatalf("seed %d:\n%s", seed, report.Text())
	}
}

// A host has services. Each service has some listeners.
type host struct {
	random   *rand.Rand
	services []service
}

type service struct {
	name, user, kind string
	ports            []uint16 // 0: ephemeral
	address          string
	made             []*Listener // since the last restart
}

func randomHost(seed uint64) *host {
	h := &host{random: rand.New(rand.NewPCG(seed, 12))}
	kinds := []string{"service", "template", "activated", "session", "run", "container", "workers", "user", "kernel", "hostile"}
	addresses := []string{"0.0.0.0", "::", "127.0.0.1", "::1", "10.0.0.1", "::ffff:127.0.0.1"}
	for i := range 1 + h.random.IntN(12) {
		s := service{
			name: fmt.Sprintf("svc%c", 'a'+i), user: []string{"root", "jane", "1000"}[h.random.IntN(3)],
			kind: kinds[h.random.IntN(len(kinds))], address: addresses[h.random.IntN(len(addresses))],
		}
		for range 1 + h.random.IntN(3) {
			s.ports = append(s.ports, uint16(h.random.IntN(2))*uint16(1+h.random.IntN(32000)))
		}
		slices.Sort(s.ports)
		s.ports = slices.CompactFunc(s.ports, func(a, b uint16) bool { return a == b && a != 0 })
		h.services = append(h.services, s)
	}
	h.restart()
	return h
}

// restart gives every service new numbers and ephemeral ports.
func (h *host) restart() {
	hex := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteByte("0123456789abcdef"[h.random.IntN(16)])
		}
		return b.String()
	}
	systemd := Holder{Process: "systemd", Exe: "/usr/lib/systemd/systemd", Manager: true}
	for i := range h.services {
		s := &h.services[i]
		s.made = nil
		holder := Holder{Process: s.name, Exe: "/usr/sbin/" + s.name, Unit: s.name + ".service"}
		netns := ""
		switch s.kind {
		case "template":
			holder.Unit = s.name + "@" + hex(5) + ".service"
		case "session":
			holder.Unit = fmt.Sprintf("session-%d.scope", h.random.IntN(100))
		case "run":
			holder.Unit = "run-r" + hex(32) + ".scope"
		case "user":
			holder.Unit, holder.UserUnit = "user@1000.service", fmt.Sprintf("app-%s-%d.scope", s.name, h.random.IntN(100000))
		case "container":
			holder.Container = hex(12)
			holder.Unit, holder.Pod = "docker-"+holder.Container+hex(52)+".scope", hex(36)
			netns = fmt.Sprint(4026530000 + h.random.IntN(10000))
		case "workers":
			holder.Process = fmt.Sprintf("%s-%d", s.name, h.random.IntN(50))
		case "hostile":
			holder.Process, holder.Exe = `*"\x0a${X}{[`+s.name, "/tmp/?"
		}
		for _, port := range s.ports {
			if port == 0 {
				port = ephemeral.First + uint16(h.random.IntN(int(ephemeral.Last-ephemeral.First)))
			}
			holders := []Holder{holder}
			switch s.kind {
			case "activated":
				holders = append(holders, systemd)
			case "kernel":
				holders = nil
			}
			s.made = append(s.made, nginx(port, at(s.address), held(holders...), func(l *Listener) {
				l.User, l.Netns, l.Unit = s.user, netns, ""
			}))
		}
	}
}

// listeners returns the host's listeners in random order.
func (h *host) listeners() []*Listener {
	var all []*Listener
	for _, s := range h.services {
		all = append(all, s.made...)
	}
	h.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func TestRuleOfAnActivatedListenerHoldsWithoutItsService(t *testing.T) {
	systemd := Holder{Process: "systemd", Exe: "/usr/lib/systemd/systemd", Manager: true}
	sshd := Holder{Process: "sshd", Exe: "/usr/sbin/sshd", Unit: "ssh.service"}
	r := compile(t, "unlisted = 'unexpected'\n"+Print(Suggest([]*Listener{nginx(22, held(sshd, systemd))}, ephemeral), ""))
	for name, l := range map[string]*Listener{
		"before": nginx(22, held(systemd)), "during": nginx(22, held(sshd, systemd)), "without its manager": nginx(22, held(sshd)),
	} {
		if report := NewReport(r, []*Listener{l}, now); !report.OK {
			t.Errorf("%s:\n%s", name, report.Text())
		}
	}
	l := nginx(22, held(Holder{Process: "sshd", Exe: "/tmp/sshd"}))
	if report := NewReport(r, []*Listener{l}, now); report.OK {
		t.Error("another program passes for sshd")
	}
}

func TestNamedNetworkNamespaceIsPartOfARule(t *testing.T) {
	l := nginx(80, func(l *Listener) { l.Netns = "blue" })
	rules := Suggest([]*Listener{l}, ephemeral)
	if diff := cmp.Diff([]string{"blue"}, []string(rules[0].Rule.Netns)); diff != "" {
		t.Errorf("netns (-want +got):\n%s", diff)
	}
}

func TestAddressWithADeviceIsEscaped(t *testing.T) {
	l := nginx(80, func(l *Listener) {
		l.Address, l.Device, l.Exposure = netip.MustParseAddr("fe80::1"), "br[0]", inet.LinkLocal
	})
	r := compile(t, "unlisted = 'unexpected'\n"+Print(Suggest([]*Listener{l}, ephemeral), ""))
	passes(t, 0, r, []*Listener{l})
}
