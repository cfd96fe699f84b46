package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent"
	"sockwatch/agent/plugin/plugintest/schematest"
	"sockwatch/agent/plugin/plugintest/servertest"
	"sockwatch/agent/plugin/plugintest/soak"
)

// A hostService is a service of a random host, as it scans after each start.
type hostService struct {
	path  func(run int) string // of its program, below the host's directory
	name  func(run int) string // that it gives itself; "": the program's name
	uid   int
	fixed []string // addresses
	loose int      // further listeners, at ephemeral ports
}

// randomServices returns typical services: some have a release or a number in
// the name, some listen at ephemeral ports.
func randomServices(r *rand.Rand) (services []hostService) {
	names := []string{"nginx", "sshd", "a b", "x[1]*", "ünï", "${HOME}", `q"uote`, "java", "python3.11", "postgres", "rpc.statd", "systemd-resolve"}
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	used := map[int]bool{}
	for i := range 2 + r.IntN(6) {
		name := names[i]
		s := hostService{uid: []int{0, 0, 65534, 12345}[r.IntN(4)], path: func(int) string { return name }, name: func(int) string { return "" }}
		switch r.IntN(4) {
		case 0:
			s.path = func(run int) string { return fmt.Sprintf("releases/2026%04d/%s", 1000+run, name) }
		case 1:
			s.name = func(run int) string { return fmt.Sprintf("job-%d", 10*i+run) }
		}
		for range r.IntN(3) {
			port := 1024 + r.IntN(31_000)
			if used[port] {
				continue
			}
			used[port] = true
			address := []string{"tcp4/0.0.0.0:%d", "tcp4/127.0.0.1:%d", "tcp6/[::1]:%d", "tcp/:%d", "tcp6/[::]:%d"}[r.IntN(5)]
			s.fixed = append(s.fixed, fmt.Sprintf(address, port))
		}
		if s.loose = r.IntN(3); s.fixed == nil {
			s.loose++
		}
		services = append(services, s)
	}
	return services
}

// startAll starts services in a random order, all at once.
func (h *netHost) startAll(r *rand.Rand, services []hostService, run int) (running []*process) {
	h.t.Helper()
	for _, i := range r.Perm(len(services)) {
		s := services[i]
		addresses := append([]string(nil), s.fixed...)
		for range s.loose {
			addresses = append(addresses, "tcp4/127.0.0.1:0")
		}
		running = append(running, h.serveAs(s.name(run), s.path(run), s.uid, addresses...))
	}
	for _, p := range running {
		awaitLine(h.t, p)
	}
	return running
}

// end ends services by closing their standard input.
func end(t *testing.T, running ...*process) {
	t.Helper()
	for _, p := range running {
		p.stdin.Close()
		if code := p.exitCode(t); code != 0 {
			t.Fatalf("%s: exit code %d: %s", p.Path, code, p.stderr)
		}
	}
}

// The rules that expect prints for a host hold there, are the same when it is run again,
// and still hold after every service was restarted and ephemeral ports have moved. A missing
// or unlisted service does not pass.
func TestRulesOfExpectHoldAfterRestarts(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many hosts")
	}
	for seed := range soak.Times(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			h := newNetHost(t)
			r := rand.New(rand.NewPCG(uint64(seed), 12))
			services := randomServices(r)
			running := h.startAll(r, services, 0)

			draft := h.sockwatch("expect")
			if again := h.sockwatch("expect"); again != draft || draft.Code != 0 || draft.Stderr != "" {
				t.Fatalf("the first and the second run differ, or fail (-first +second):\n%s\n%+v", cmp.Diff(draft, again), draft)
			}
			rules := writeFile(t, h.dir, "rules.toml", draft.Stdout)
			config := writeFile(t, h.dir, "sockwatch.toml", fmt.Sprintf("[[inputs.tcp_listen]]\nunlisted = \"unexpected\"\nexpect_file = %q\n", rules))
			check := func(when string, config string, code int, want ...string) {
				t.Helper()
				got := h.sockwatch("check", "--live", "--config", config)
				for _, w := range want {
					if !regexp.MustCompile(w).MatchString(got.Stdout) || got.Code != code || got.Stderr != "" {
						t.Errorf("%s: want exit code %d and %q, got %d %s\n%s\nrules:\n%s", when, code, w, got.Code, got.Stderr, got.Stdout, draft.Stdout)
					}
				}
			}
			const ok = `(?m)^\d+ listeners?, \d+ rules? \(digest [0-9a-f]{12}\): ok\n\z`
			check("at once", config, 0, ok)
			if seed == 0 {
				inline := h.sockwatch("expect", "--inline", "--config", config)
				text := "[[inputs.tcp_listen]]\nunlisted = \"unexpected\"\n" + inline.Stdout
				check("inline", writeFile(t, h.dir, "inline.toml", text), 0, ok)
			}
			end(t, running...)
			running = h.startAll(r, services, 1)
			check("after restarts", config, 0, ok)
			end(t, running[0])
			check("with one missing", config, 1, `^missing     `)
			intruder := h.serve("intruder", 0, "tcp4/127.0.0.1:0", "tcp4/0.0.0.0:1023")
			awaitLine(t, intruder)
			check("with an intruder", config, 1, `(?m)^unexpected  0\.0\.0\.0:1023 of intruder \(root.*\): `, `(?m)^unexpected  127\.0\.0\.1:\d+ of intruder \(root.*\): `)
		})
	}
}

// check --live at 03:12: the worst comes first, each with the nearest rule.
func TestCheckLiveNamesWhatIsNotInOrder(t *testing.T) {
	t.Parallel()
	h := newNetHost(t)
	awaitLine(t, h.serve("nginx", 0, "tcp4/0.0.0.0:8080", "tcp4/0.0.0.0:8443"))
	awaitLine(t, h.serve("in.telnetd", 0, "tcp4/0.0.0.0:1023"))
	config := writeFile(t, h.dir, "s.toml", `
[[inputs.tcp_listen]]
  unlisted = "unexpected"
  [[inputs.tcp_listen.expect]]
  name = "web"
  port = 8080
  process = "nginx"
  [[inputs.tcp_listen.expect]]
  name = "db"
  port = 5432
  process = "postgres"
  why = "orders"
  [[inputs.tcp_listen.forbid]]
  name = "telnet"
  port = 1023
  why = "clear text"
`)
	got := h.sockwatch("check", "--live", "--config", config)
	got.Stdout = regexp.MustCompile(`\(root[^)]*\)|[0-9a-f]{12}`).ReplaceAllString(got.Stdout, "X")
	want := result{Code: 1, Stdout: `missing     db: port 5432: 0 of 1 endpoints (orders)
forbidden   0.0.0.0:1023 of in.telnetd X: matches forbid rule telnet: clear text
unexpected  0.0.0.0:8443 of nginx X: port 8443 is not 8080 of rule web
3 listeners, 3 rules (digest X): 1 missing, 1 forbidden, 1 unexpected
`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	got = h.sockwatch("check", "--live", "--json", "--config", config)
	var report struct {
		Host, Input, Digest, Time string
		MachineID                 string `json:"machine_id"`
		BootID                    string `json:"boot_id"`
		ListenerSource            string `json:"listener_source"`
		OwnerSource               string `json:"owner_source"`
		OK                        bool
		Listeners                 []struct {
			Verdict, Rule, Why string
			Tags               map[string]string
		}
	}
	schematest.Report(t, []byte(got.Stdout))
	if err := json.Unmarshal([]byte(got.Stdout), &report); err != nil {
		t.Fatalf("%v: %+v", err, got)
	}
	var verdicts []string
	for _, l := range report.Listeners {
		verdicts = append(verdicts, l.Tags["port"]+" "+l.Verdict+" "+l.Rule)
	}
	if diff := cmp.Diff([]string{"1023 forbidden telnet", "8080 yes web", "8443 no web"}, verdicts); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
	if report.ListenerSource != "netlink" || report.OwnerSource != "bpf" && report.OwnerSource != "procfs" {
		t.Errorf("sources %q and %q", report.ListenerSource, report.OwnerSource)
	}
	if got.Code != 1 || report.OK || report.Host == "" || report.BootID == "" || report.Time == "" || report.Input != "tcp_listen" {
		t.Errorf("exit code %d, %+v", got.Code, report)
	}
	if want := "sockwatch: inputs.tcp_listen: 3 listeners, 3 rules (digest " + report.Digest + "): 1 missing, 1 forbidden, 1 unexpected\n"; got.Stderr != want {
		t.Errorf("stderr %q, want %q", got.Stderr, want)
	}
}

// Each input that has rules has its own report; the others have none.
func TestCheckLiveOfSeveralInputs(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the program several times")
	}
	t.Parallel()
	h := newNetHost(t)
	awaitLine(t, h.serve("nginx", 0, "tcp4/0.0.0.0:8080"))
	config := writeFile(t, h.dir, "s.toml", `
[[inputs.tcp_listen]]
  alias = "plain"
[[inputs.tcp_listen]]
  alias = "team"
  [[inputs.tcp_listen.expect]]
  name = "web"
  port = 8080
[[inputs.tcp_listen]]
  alias = "audit"
  [[inputs.tcp_listen.forbid]]
  name = "no-web"
  port = 8080
`)
	got := h.sockwatch("check", "--live", "--config", config)
	got.Stdout = regexp.MustCompile(`\(root[^)]*\)|[0-9a-f]{12}`).ReplaceAllString(got.Stdout, "X")
	want := result{Code: 1, Stdout: `inputs.tcp_listen-team:
1 listener, 1 rule (digest X): ok

inputs.tcp_listen-audit:
forbidden   0.0.0.0:8080 of nginx X: matches forbid rule no-web
1 listener, 1 rule (digest X): 1 forbidden
`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got = h.sockwatch("check", "--live", "--json", "--config", config)
	var inputs []string
	for line := range strings.Lines(got.Stdout) {
		schematest.Report(t, []byte(line))
		var report struct {
			Input string
			OK    bool
		}
		if err := json.Unmarshal([]byte(line), &report); err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, fmt.Sprint(report.Input, " ", report.OK))
	}
	if diff := cmp.Diff([]string{"tcp_listen-team true", "tcp_listen-audit false"}, inputs); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
	if draft := h.sockwatch("expect", "--config", config); draft.Code != 0 || strings.Count(draft.Stdout, "# Of inputs.tcp_listen") != 3 {
		t.Errorf("expect: %+v", draft)
	}
}

// Without permission to read the owners, expect still prints a draft, and says that it must not be
// approved. check --live is then undecided, and so fails.
func TestAuditWithoutOwnersFails(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the program several times")
	}
	t.Parallel()
	h := newNetHost(t)
	awaitLine(t, h.serve("nginx", 0, "tcp4/0.0.0.0:8080"))
	const hint = "the capabilities CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH are both needed"

	p := h.start("sockwatch", "unprivileged", nil, "expect")
	code := p.exitCode(t)
	for _, w := range []string{"\n# Port 8080 of 0.0.0.0: an owner that could not be read\n", "name = \"port-8080\"\nport = 8080\naddress = \"0.0.0.0\"\nuser = \"root\"\n"} {
		if got := p.stdout.String(); code != 1 || !strings.Contains(got, w) || strings.Contains(got, "process =") {
			t.Errorf("exit code %d, stdout %s\nwant %s", code, got, w)
		}
	}
	for _, w := range []string{hint, "sockwatch: inputs.tcp_listen: the rules of 1 listener name no process, because the owner is unknown: 0.0.0.0:8080\n"} {
		if got := p.stderr.String(); !strings.Contains(got, w) {
			t.Errorf("stderr %s\nwant %s", got, w)
		}
	}

	config := publicFile(t, "[[inputs.tcp_listen]]\n[[inputs.tcp_listen.allow]]\nname = 'web'\nprocess = 'nginx'\n")
	p = h.start("sockwatch", "unprivileged", nil, "check", "--live", "--config", config)
	code = p.exitCode(t)
	if got, want := p.stdout.String(), ": process is not known to be nginx of rule web\n"; code != 1 || !strings.HasPrefix(got, "undecided   0.0.0.0:8080 (root") || !strings.Contains(got, want) {
		t.Errorf("exit code %d, stdout %s\nwant %s", code, got, want)
	}
	if got := p.stderr.String(); !strings.Contains(got, hint) {
		t.Errorf("stderr %s\nwant %s", got, hint)
	}
}

// The commands of docs/baseline.md lead from an empty host to a report without faults.
func TestBaselineCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the program several times")
	}
	t.Parallel()
	bash := servertest.Binary(t, "bash")
	text := readFile(t, "docs", "baseline.md")
	h := newNetHost(t)
	awaitLine(t, h.serve("nginx", 0, "tcp4/0.0.0.0:8080", "tcp4/127.0.0.1:0"))
	rules := filepath.Join(h.dir, "expect.d")
	if err := os.Mkdir(rules, 0o700); err != nil {
		t.Fatal(err)
	}
	moved := func(s string) string { return strings.ReplaceAll(s, "/etc/sockwatch", h.dir) }
	writeFile(t, h.dir, "sockwatch.toml", moved(markdownBlock(t, text, "toml")))

	var got []string
	for _, m := range regexp.MustCompile(`(?m)^    (sockwatch .*)$`).FindAllStringSubmatch(text, -1) {
		cmd := exec.CommandContext(t.Context(), bash, "-c", `sockwatch() { "$PROGRAM" "$@"; }; `+moved(m[1]))
		cmd.Dir = h.dir
		cmd.Env = append(os.Environ(), "PROGRAM="+h.program("sockwatch"), "SOCKWATCH_CONFIG="+filepath.Join(h.dir, "sockwatch.toml"), "STATE_DIRECTORY=",
			"SOCKWATCH_TEST_BE=in-netns", "SOCKWATCH_TEST_THEN=sockwatch", "SOCKWATCH_TEST_NETNS="+h.path)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", m[1], err, out)
		}
		got = append(got, m[1])
	}
	want := []string{
		"sockwatch expect >/etc/sockwatch/expect.d/baseline.toml", "sockwatch check", "sockwatch check --live",
		`sockwatch check --live --json >"$(hostname)-$(date +%F).json"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	artifacts, _ := filepath.Glob(filepath.Join(h.dir, "*.json"))
	if len(artifacts) != 1 {
		t.Fatalf("artifacts %q", artifacts)
	}
	json, err := os.ReadFile(artifacts[0])
	if err != nil || !strings.Contains(string(json), `"ok":true`) {
		t.Errorf("%v: %s", err, json)
	}
}

// publicFile writes a file that every user may read, below directories that every user may
// pass.
func publicFile(t *testing.T, text string) string {
	t.Helper()
	f, err := os.CreateTemp("", "sockwatch-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(f.Name()) })
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// A configuration without rules, or with rule files that do not exist yet, does not pass.
func TestCheckLiveWithoutRulesFails(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct {
		name, text, want string
	}{
		{"none", smallConfig, ": inputs.tcp_listen has no rules to compare with: add [[inputs.tcp_listen.expect]] or expect_file; \"sockwatch expect\" prints a draft\n"},
		{"no file", "[[inputs.tcp_listen]]\nexpect_file = '" + dir + "/*.rules'\n", ": inputs.tcp_listen has no rules to compare with: add [[inputs.tcp_listen.expect]] or expect_file; \"sockwatch expect\" prints a draft\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := writeFile(t, dir, "s.toml", test.text)
			got := sockwatchRun(nil, "check", "--live", "--config", path)
			if diff := cmp.Diff(result{1, "", "sockwatch: " + path + test.want}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// If it is interrupted, it fails; and a scan that hangs ends.
func TestScanThatDoesNotEndFails(t *testing.T) {
	in := &agent.Input{Name: "tcp_listen"}
	hang := func(context.Context) (int, error) { select {} }
	_, err := scanWithinTime(t.Context(), 10*time.Millisecond, in, hang)
	if want := "inputs.tcp_listen: the scan has not finished within 10ms"; err == nil || err.Error() != want {
		t.Errorf("a scan that hangs: %v, want %s", err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = scanWithinTime(ctx, time.Minute, in, hang)
	if want := "inputs.tcp_listen: interrupted"; err == nil || err.Error() != want {
		t.Errorf("interrupted: %v, want %s", err, want)
	}
}
