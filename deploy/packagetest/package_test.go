package packagetest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sourceVersion is the one constant that every version comes from.
var sourceVersion = func() string {
	text, _ := os.ReadFile("../../cmd/sockwatch/version.go")
	m := regexp.MustCompile(`(?m)^const sourceVersion = "(.*)"$`).FindSubmatch(text)
	if m == nil {
		return ""
	}
	return string(m[1])
}()

// rpmArch is how rpm names this machine's architecture.
var rpmArch = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]

// TestTwoBuildsAreEqual builds a second time elsewhere, with a umask of its own, and without the
// network: go.sum files know the modules that the first build has used.
func TestTwoBuildsAreEqual(t *testing.T) {
	build(t)
	source, out := filepath.Join(t.TempDir(), "elsewhere"), t.TempDir()
	if err := copySource(source); err != nil {
		t.Fatal(err)
	}
	modules := must(t, "go env GOMODCACHE")
	cmd := exec.Command("sh", "-c", `umask 077; exec "$0" "$1"`, filepath.Join(source, "deploy/package.sh"), out)
	cmd.Env = append(os.Environ(), epoch, "GOPATH="+t.TempDir(), "GOMODCACHE="+modules, "GOPROXY=off", "HTTPS_PROXY=http://127.0.0.1:1")
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("package.sh: %v\n%s", err, output)
	}
	first, err := os.ReadDir(built.current)
	if err != nil {
		t.Fatal(err)
	}
	version := strings.ReplaceAll(sourceVersion, "-", "~")
	want := []string{
		"sockwatch-" + version + "-1.aarch64.rpm", "sockwatch-" + version + "-1.x86_64.rpm",
		"sockwatch-oci.tar",
		"sockwatch_" + version + "-1_amd64.deb", "sockwatch_" + version + "-1_arm64.deb",
	}
	var names []string
	for _, f := range first {
		names = append(names, f.Name())
		a, err := os.ReadFile(filepath.Join(built.current, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(out, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s: a second build differs", f.Name())
		}
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// TestTagOfAnotherVersionIsRefused: at a tag, "go build" takes the version of the program from it.
func TestTagOfAnotherVersionIsRefused(t *testing.T) {
	source := t.TempDir()
	if err := copySource(source); err != nil {
		t.Fatal(err)
	}
	git := "git -C " + source + " -c user.name=test -c user.email=test@example.org "
	must(t, git+"init -q; "+git+"add cmd/sockwatch/version.go; "+git+"commit -q -m release; "+git+"tag v99.0.0")
	err := packageSh(filepath.Join(source, "deploy"), filepath.Join(source, "out"), "ARCHES=none")
	want := "the commit has the tag v99.0.0, but sourceVersion in cmd/sockwatch/version.go is " + sourceVersion + "\n"
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
	must(t, git+"tag v"+sourceVersion)
	if err := packageSh(filepath.Join(source, "deploy"), filepath.Join(source, "out"), "ARCHES=none"); err == nil || strings.Contains(err.Error(), "has the tag") {
		t.Errorf("%v, want that GOARCH=none is refused", err)
	}
}

// TestSourceWithoutGitNeedsATime: an unpacked archive has no commit.
func TestSourceWithoutGitNeedsATime(t *testing.T) {
	source := t.TempDir()
	if err := copySource(source); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(source, "deploy/package.sh"), filepath.Join(source, "out"))
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=", "GIT_CEILING_DIRECTORIES="+filepath.Dir(source))
	output, err := cmd.CombinedOutput()
	want := "outside of a clone, set SOURCE_DATE_EPOCH to the time of the release, in seconds since 1970\n"
	if err == nil || !strings.HasSuffix(string(output), want) {
		t.Errorf("%v: %s, want %q", err, output, want)
	}
}

func TestPackagesHoldTheSameFiles(t *testing.T) {
	need(t, "rpm")
	build(t)
	common := []string{
		"/etc/sockwatch", "/etc/sockwatch/expect.d", "/etc/sockwatch/sockwatch.d", "/etc/sockwatch/sockwatch.toml",
		"/usr/bin/sockwatch",
		"/usr/lib/systemd/system/sockwatch.service", "/usr/lib/systemd/system/sockwatch.socket", "/usr/lib/sysusers.d/sockwatch.conf",
		"/usr/share/bash-completion/completions/sockwatch",
		"/usr/share/doc/sockwatch/changelog.gz", "/usr/share/doc/sockwatch/third-party.gz",
		"/usr/share/fish/vendor_completions.d/sockwatch.fish",
		"/usr/share/man/man1/sockwatch.1.gz", "/usr/share/man/man5/sockwatch.toml.5.gz",
		"/usr/share/sockwatch/bpf.conf", "/usr/share/sockwatch/namespaces.conf",
	}
	for _, test := range []struct {
		name, files, list string
		more              []string
	}{
		{
			name: "deb", files: "*.deb", list: "dpkg-deb --fsys-tarfile %s | tar -t | sed 's,^[.],,; s,/$,,'",
			more: []string{
				"/usr/share/doc/sockwatch/changelog.Debian.gz", "/usr/share/doc/sockwatch/copyright",
				"/usr/share/lintian/overrides/sockwatch", "/usr/share/zsh/vendor-completions/_sockwatch",
			},
		},
		{
			name: "rpm", files: "*.rpm", list: "rpm -qpl %s",
			more: []string{"/usr/share/licenses/sockwatch/LICENSE", "/usr/share/zsh/site-functions/_sockwatch"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			files, err := filepath.Glob(filepath.Join(built.current, test.files))
			if err != nil || len(files) != 2 {
				t.Fatalf("%q, %v; want two packages", files, err)
			}
			want := slices.Sorted(slices.Values(slices.Concat(common, test.more)))
			for _, file := range files {
				got := strings.Fields(must(t, fmt.Sprintf(test.list, file)))
				got = slices.DeleteFunc(got, func(path string) bool { return !strings.Contains(path, "sockwatch") }) // folders of the system
				got = slices.DeleteFunc(got, func(path string) bool {                                                // our folders, which are not in the rpm
					return slices.Contains([]string{"/usr/share/doc/sockwatch", "/usr/share/sockwatch"}, path)
				})
				slices.Sort(got)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", filepath.Base(file), diff)
				}
			}
		})
	}
}

func TestLintianFindsNothing(t *testing.T) {
	need(t, "lintian")
	build(t)
	for _, arch := range []string{"amd64", "arm64"} {
		deb := one(t, built.current+"/*_"+arch+".deb")
		if output, err := exec.Command("lintian", "--allow-root", "--fail-on", "error,warning", deb).CombinedOutput(); err != nil {
			t.Errorf("lintian %s: %v\n%s", deb, err, output)
		}
	}
}

// debs returns the packages that tests install, by name.
func debs(t *testing.T) map[string]string {
	t.Helper()
	if os.Getenv("SOCKWATCH_BOOTED") != "" {
		return nil
	}
	build(t)
	return map[string]string{
		"current.deb":  one(t, built.current+"/*_"+runtime.GOARCH+".deb"),
		"previous.deb": one(t, built.previous+"/*.deb"),
	}
}

// TestServiceFromInstallToPurge does what operators do with the package, in their order.
func TestServiceFromInstallToPurge(t *testing.T) {
	booted(t, "", debs(t), func(t *testing.T) {
		for _, step := range []struct {
			name string
			run  func(t *testing.T)
		}{
			{"install", testInstall},
			{"exposure", testExposure},
			{"owners of root", testOwners},
			{"reload", testReload},
			{"events and rules", testEvents},
			{"files of outputs", testFiles},
			{"unix socket of the group", testUnixSocket},
			{"credential", testCredential},
			{"network namespaces", testNamespaces},
			{"BPF", testBPF},
			{"socket unit", testSocketUnit},
			{"watchdog", testWatchdog},
			{"address that comes up late", testLateAddress},
			{"upgrade", testUpgrade},
			{"remove", testRemove},
			{"purge", testPurge},
		} {
			if !t.Run(step.name, step.run) {
				return // later steps build on it
			}
		}
	})
}

// TestUneditedConfigurationIsUpgraded begins where an image builder has installed the package:
// in a folder, without a running systemd.
func TestUneditedConfigurationIsUpgraded(t *testing.T) {
	booted(t, `chroot "$R" dpkg -i /previous.deb`, debs(t), func(t *testing.T) {
		prints(t, "systemctl is-enabled sockwatch.service", "enabled")
		must(t, "systemctl start sockwatch")
		modes(t)
		must(t, "dpkg -i /current.deb </dev/null")
		prints(t, "grep -c 'A line of the previous release' /etc/sockwatch/sockwatch.toml", "0")
		prints(t, "systemctl is-active sockwatch.service", "active")
		modes(t)
	})
}

func testInstall(t *testing.T) {
	must(t, "dpkg -i /previous.deb")
	prints(t, "systemctl is-active sockwatch.service", "active")
	prints(t, "systemctl is-enabled sockwatch.service", "enabled")
	prints(t, "systemctl is-enabled sockwatch.socket", "disabled")
	prints(t, "sockwatch version | cut -d' ' -f1,2", "sockwatch 0.1.9")
	prints(t, "systemctl show --value -p User sockwatch.service", "sockwatch")
	modes(t)
	prints(t, "dpkg-query -W -f '${Conffiles}' sockwatch | cut -d' ' -f2", "/etc/sockwatch/sockwatch.toml")
	prints(t, "ss -Htlnp sport = :8088 | awk '{ print $4 }'", "127.0.0.1:8088")
	// An edit by the operator, for the steps that follow.
	if err := replaceIn("/etc/sockwatch/sockwatch.toml", "[agent]\n", "[agent]\n  interval = \"1s\"\n"); err != nil {
		t.Fatal(err)
	}
	must(t, "systemctl reload sockwatch")
	prints(t, "journalctl -u sockwatch -o cat | grep -E 'level=(WARN|ERROR)'", "")
}

// modes checks the mode and owner of the files that the package and its service create.
func modes(t *testing.T) {
	t.Helper()
	for _, want := range []string{
		"755 root:root /etc/sockwatch",
		"640 root:sockwatch /etc/sockwatch/sockwatch.toml",
		"750 root:sockwatch /etc/sockwatch/sockwatch.d",
		"750 root:sockwatch /etc/sockwatch/expect.d",
		"700 sockwatch:sockwatch /var/lib/sockwatch",
		"750 sockwatch:sockwatch /var/log/sockwatch",
		"750 sockwatch:sockwatch /run/sockwatch",
	} {
		prints(t, "stat -c '%a %U:%G %n' "+want[strings.LastIndex(want, " ")+1:], want)
	}
}

func testExposure(t *testing.T) {
	output := must(t, "systemd-analyze security --no-pager sockwatch.service")
	m := regexp.MustCompile(`Overall exposure level for sockwatch.service: ([0-9.]+)`).FindStringSubmatch(output)
	if m == nil {
		t.Fatalf("no level in:\n%s", output)
	}
	if level, err := strconv.ParseFloat(m[1], 64); err != nil || level > 2.3 {
		t.Errorf("exposure %s, want 2.3 at most\n%s", m[1], output)
	}
}

const metrics = "curl -s http://127.0.0.1:8088/metrics"

func testOwners(t *testing.T) {
	must(t, "systemd-run --unit=other /packagetest listen 127.0.0.1:7777")
	eventually(t, metrics+" | grep '^tcp_listen_sockets.*port=\"7777\"'",
		`owner="resolved",port="7777",process="packagetest",unit="other.service",user="root"`)
	prints(t, metrics+" | grep -c 'owner=\"unreadable\"'", "0")
}

func testReload(t *testing.T) {
	must(t, "systemctl reload sockwatch")
	pid := must(t, "systemctl show --value -p MainPID sockwatch")
	write(t, "/etc/sockwatch/sockwatch.d/wrong.toml", "[[outputs.file]]\nalias = \"wrong\"\npath = 5\n")
	refused(t, "systemctl reload sockwatch")
	eventually(t, "journalctl -u sockwatch", "/etc/sockwatch/sockwatch.d/wrong.toml:3: ")
	prints(t, "systemctl is-active sockwatch", "active")
	prints(t, "systemctl show --value -p MainPID sockwatch", pid)
	must(t, "rm /etc/sockwatch/sockwatch.d/wrong.toml; systemctl reload sockwatch")
	prints(t, "systemctl show --value -p MainPID sockwatch", pid)
}

func testEvents(t *testing.T) {
	write(t, "/etc/sockwatch/expect.d/test.toml", "[[forbid]]\nname = \"no-7779\"\nport = 7779\nwhy = \"a test\"\n")
	must(t, "systemctl reload sockwatch")
	must(t, "systemd-run --unit=forbidden /packagetest listen 127.0.0.1:7779")
	events := "grep '\"port\":\"7779\"' /var/log/sockwatch/events.jsonl | grep '\"event\":\"%s\"' | grep '\"unit\":\"forbidden.service\"'"
	eventually(t, fmt.Sprintf(events, "opened"), `"name":"tcp_listen_event"`)
	eventually(t, fmt.Sprintf(events, "violated"), `"name":"tcp_listen_rule_event"`)
	prints(t, "grep -vcE '\"name\":\"tcp_listen_(rule_)?event\"' /var/log/sockwatch/events.jsonl", "0")
	prints(t, "stat -c '%a %U:%G' /var/log/sockwatch/events.jsonl", "640 sockwatch:sockwatch")
	must(t, "test -s /var/lib/sockwatch/tcp_listen.history.jsonl")
	must(t, "systemctl stop forbidden; rm /etc/sockwatch/expect.d/test.toml; systemctl reload sockwatch")
}

// testFiles adds a second output of a kind that the packaged configuration has, without an edit of it.
func testFiles(t *testing.T) {
	write(t, "/etc/sockwatch/sockwatch.d/file.toml", "[[outputs.file]]\nalias = \"all\"\npath = \"/var/log/sockwatch/all.jsonl\"\n")
	must(t, "systemctl reload sockwatch")
	eventually(t, "cat /var/log/sockwatch/all.jsonl", `"name":"tcp_listen"`)
	prints(t, "stat -c '%a %U:%G' /var/log/sockwatch/all.jsonl", "640 sockwatch:sockwatch")
	must(t, "rm /etc/sockwatch/sockwatch.d/file.toml; systemctl reload sockwatch")
}

func testUnixSocket(t *testing.T) {
	must(t, `sed -i 's#listen = "127.0.0.1:8088"#listen = ["127.0.0.1:8088", "unix:/run/sockwatch/metrics.sock"]#' /etc/sockwatch/sockwatch.toml`)
	must(t, "systemctl reload sockwatch")
	get := "setpriv --reuid nobody --regid nogroup %s /packagetest get /run/sockwatch/metrics.sock"
	eventually(t, fmt.Sprintf(get, "--groups sockwatch"), "tcp_listen_sockets{")
	if output := refused(t, fmt.Sprintf(get, "--clear-groups")); !strings.Contains(output, "permission denied") {
		t.Errorf("somebody else: %s", output)
	}
	must(t, `sed -i 's#listen = .*#listen = "127.0.0.1:8088"#' /etc/sockwatch/sockwatch.toml; systemctl reload sockwatch`)
}

func testCredential(t *testing.T) {
	authorizations := make(chan string, 1000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case authorizations <- r.Header.Get("Authorization"):
		default:
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	write(t, "/root/influxdb.token", "secret-of-root")
	must(t, "chmod 600 /root/influxdb.token")
	write(t, "/etc/systemd/system/sockwatch.service.d/credential.conf", "[Service]\nLoadCredential=influxdb.token:/root/influxdb.token\n")
	write(t, "/etc/sockwatch/sockwatch.d/influxdb.toml", `
[[outputs.influxdb]]
  urls = ["`+server.URL+`"]
  organization = "o"
  bucket = "b"
  token_file = "${CREDENTIALS_DIRECTORY}/influxdb.token"
  flush_interval = "1s"
`)
	must(t, "systemctl daemon-reload; systemctl restart sockwatch")
	if got, want := <-authorizations, "Token secret-of-root"; got != want {
		t.Errorf("Authorization %q, want %q", got, want)
	}
	must(t, "systemctl reload sockwatch")
	must(t, "rm /etc/sockwatch/sockwatch.d/influxdb.toml /etc/systemd/system/sockwatch.service.d/credential.conf")
	must(t, "systemctl daemon-reload; systemctl restart sockwatch")
}

func testNamespaces(t *testing.T) {
	must(t, "systemd-run --unit=apart -p PrivateNetwork=yes /packagetest listen 127.0.0.1:7778")
	if err := replaceIn("/etc/sockwatch/sockwatch.toml", "[[inputs.tcp_listen]]\n", "[[inputs.tcp_listen]]\n  namespaces = true\n"); err != nil {
		t.Fatal(err)
	}
	must(t, "install -D -m 644 /usr/share/sockwatch/namespaces.conf /etc/systemd/system/sockwatch.service.d/namespaces.conf")
	must(t, "systemctl daemon-reload; systemctl restart sockwatch")
	// Only netlink, in the namespace itself, knows the limit of a backlog.
	eventually(t, metrics+" | grep '^tcp_listen_backlog_limit.*port=\"7778\"'", `unit="apart.service"`)
	must(t, "rm /etc/systemd/system/sockwatch.service.d/namespaces.conf; sed -i '/namespaces = true/d' /etc/sockwatch/sockwatch.toml")
	must(t, "systemctl daemon-reload; systemctl restart sockwatch")
}

// testBPF grants what the kernel needs to tell sockwatch, by the drop-in alone, and takes it back.
func testBPF(t *testing.T) {
	const source = metrics + " | grep '^tcp_listen_source_info'"
	const notes = "journalctl -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show --value -p InvocationID sockwatch) | grep 'BPF is not in use' | grep -c 'the packaged drop-in bpf.conf'"
	eventually(t, source, `listen_events="off",listener_source="netlink",owner_source="procfs"`)
	must(t, "systemctl reload sockwatch; sleep 2")
	prints(t, notes, "1")
	must(t, "install -D -m 644 /usr/share/sockwatch/bpf.conf /etc/systemd/system/sockwatch.service.d/bpf.conf")
	must(t, "systemctl daemon-reload; systemctl restart sockwatch")
	eventually(t, source, `listen_events="on",listener_source="netlink",owner_source="bpf"`)
	prints(t, notes, "0")
	must(t, "systemd-run --unit=brief /packagetest brief 127.0.0.1:7780")
	events := "grep '\"port\":\"7780\"' /var/log/sockwatch/events.jsonl | grep '\"event\":\"%s\"' | grep '\"window_seconds\":0[,}]'"
	eventually(t, fmt.Sprintf(events, "opened"), `"unit":"brief.service"`)
	must(t, "systemctl stop brief; rm /etc/systemd/system/sockwatch.service.d/bpf.conf; systemctl daemon-reload; systemctl restart sockwatch")
	eventually(t, source, `owner_source="procfs"`)
}

func testSocketUnit(t *testing.T) {
	must(t, `sed -i 's/listen = "127.0.0.1:8088"/listen = "systemd:metrics"/' /etc/sockwatch/sockwatch.toml`)
	must(t, "systemctl stop sockwatch.service; systemctl enable --now sockwatch.socket; systemctl start sockwatch.service")
	eventually(t, metrics, "tcp_listen_sockets{")
	must(t, "systemctl reload sockwatch")
	must(t, "systemctl stop sockwatch.service; systemctl disable --now sockwatch.socket")
	must(t, `sed -i 's/listen = "systemd:metrics"/listen = "127.0.0.1:8088"/' /etc/sockwatch/sockwatch.toml; systemctl start sockwatch`)
}

func testWatchdog(t *testing.T) {
	write(t, "/etc/systemd/system/sockwatch.service.d/watchdog.conf", "[Service]\nWatchdogSec=2s\n")
	must(t, "systemctl daemon-reload; systemctl restart sockwatch; sleep 5")
	prints(t, "systemctl show --value -p NRestarts sockwatch", "0")
	must(t, "systemctl kill -s STOP sockwatch")
	eventually(t, "systemctl show --value -p NRestarts sockwatch", "1")
	eventually(t, "systemctl is-active sockwatch", "active")
	must(t, "rm /etc/systemd/system/sockwatch.service.d/watchdog.conf; systemctl daemon-reload; systemctl restart sockwatch")
}

// testLateAddress starts the service on an address that the host gets after more failures than
// systemd allows in a row, as a slow DHCP server causes at boot.
func testLateAddress(t *testing.T) {
	must(t, `sed -i 's/listen = "127.0.0.1:8088"/listen = "10.9.9.9:8088"/' /etc/sockwatch/sockwatch.toml`)
	refused(t, "systemctl restart sockwatch")
	must(t, "sleep 8") // with systemd's own 100 ms it gives up after less than a second
	must(t, "ip address add 10.9.9.9/32 dev lo")
	eventually(t, "curl -s http://10.9.9.9:8088/metrics", "tcp_listen_sockets{")
	must(t, `sed -i 's/listen = "10.9.9.9:8088"/listen = "127.0.0.1:8088"/' /etc/sockwatch/sockwatch.toml; systemctl restart sockwatch`)
}

func testUpgrade(t *testing.T) {
	pid := must(t, "systemctl show --value -p MainPID sockwatch")
	must(t, "dpkg --force-confdef --force-confold -i /current.deb")
	prints(t, "sockwatch version | cut -d' ' -f1,2", "sockwatch "+strings.ReplaceAll(must(t, "dpkg-query -W -f '${source:Upstream-Version}' sockwatch"), "~", "-"))
	must(t, "dpkg --compare-versions $(dpkg-query -W -f '${Version}' sockwatch) gt 0.1.9-1")
	prints(t, "grep -c 'A line of the previous release' /etc/sockwatch/sockwatch.toml", "1")
	prints(t, "grep -c 'interval = \"1s\"' /etc/sockwatch/sockwatch.toml", "1")
	prints(t, "stat -c '%a %U:%G' /etc/sockwatch/sockwatch.toml", "640 root:sockwatch")
	prints(t, "systemctl is-active sockwatch", "active")
	if now := must(t, "systemctl show --value -p MainPID sockwatch"); now == pid {
		t.Error("the service was not restarted")
	}
	must(t, "systemctl stop sockwatch; dpkg --force-confdef --force-confold -i /current.deb")
	prints(t, "systemctl is-active sockwatch", "inactive")
	must(t, "systemctl start sockwatch")
}

func testRemove(t *testing.T) {
	must(t, "touch /var/lib/sockwatch/kept")
	must(t, "dpkg -r sockwatch")
	prints(t, "systemctl is-active sockwatch", "inactive")
	must(t, "test ! -e /usr/bin/sockwatch; test -e /etc/sockwatch/sockwatch.toml; test -e /var/lib/sockwatch/kept")
	must(t, "dpkg -i /current.deb")
	prints(t, "systemctl is-active sockwatch", "active")
	prints(t, "grep -c 'interval = \"1s\"' /etc/sockwatch/sockwatch.toml", "1")
	prints(t, "systemctl is-enabled sockwatch.socket", "disabled")
	must(t, `sed -i 's/listen = "127.0.0.1:8088"/listen = "systemd:metrics"/' /etc/sockwatch/sockwatch.toml`)
	must(t, "systemctl stop sockwatch.service; systemctl enable --now sockwatch.socket; systemctl start sockwatch.service")
	must(t, "dpkg -r sockwatch; dpkg -i /current.deb") // the socket unit is enabled, as before
	prints(t, "systemctl is-active sockwatch.socket sockwatch.service", "active\nactive")
	must(t, "dpkg -r sockwatch")
}

func testPurge(t *testing.T) {
	must(t, "dpkg -P sockwatch")
	for _, path := range []string{"/etc/sockwatch", "/var/lib/sockwatch", "/var/log/sockwatch", "/etc/systemd/system/multi-user.target.wants/sockwatch.service"} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	prints(t, "find /etc/systemd/system -lname '*sockwatch*' -o -name 'sockwatch*' ! -type d", "")
}
