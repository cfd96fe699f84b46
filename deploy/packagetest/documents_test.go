package packagetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// notRun are the sections of the documents whose commands need what a booted Debian does not
// have: dnf, a registry and Docker, the source. TestRPM and the tests of the image do
// what the first two say, and TestImageIsPushed runs skopeo; package.sh does the third.
var notRun = []string{"Fedora, RHEL and SUSE", "Container", "From source"}

// A block is a shell script of a document.
type block struct{ section, script string }

// blocks returns the shell scripts of a document, in order.
func blocks(t *testing.T, document string) []block {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	for section := range strings.SplitSeq(string(text), "\n## ") {
		heading, body, _ := strings.Cut(section, "\n")
		for _, m := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```").FindAllStringSubmatch(body, -1) {
			all = append(all, block{heading, m[1]})
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s has no shell scripts", document)
	}
	return all
}

// someMetrics are of the page, or those that the section about BPF selects.
var someMetrics = regexp.MustCompile(`(?m)^(sockwatch_input_up|tcp_listen_source_info)\{`)

// TestCommandsOfTheDocuments runs install.md and operate.md as an operator reads them: from top
// to bottom. After each script the service runs, and what a curl prints are metrics.
func TestCommandsOfTheDocuments(t *testing.T) {
	files := map[string]string{}
	if os.Getenv("SOCKWATCH_BOOTED") == "" {
		build(t)
		deb := one(t, built.current+"/*_"+runtime.GOARCH+".deb")
		files = map[string]string{filepath.Base(deb): deb, "install.md": "../../docs/install.md", "operate.md": "../../docs/operate.md"}
	}
	booted(t, "", files, func(t *testing.T) {
		for _, b := range slices.Concat(blocks(t, "/install.md"), blocks(t, "/operate.md")) {
			if slices.Contains(notRun, b.section) {
				continue
			}
			cmd := exec.Command("bash", "-euo", "pipefail", "-c", strings.ReplaceAll(b.script, "_amd64", "_"+runtime.GOARCH))
			cmd.Dir = "/"
			output, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s%s", b.section, err, b.script, output)
			}
			prints(t, "systemctl is-active sockwatch", "active")
			if strings.Contains(b.script, "curl ") && !someMetrics.MatchString(string(output)) {
				t.Errorf("%s: there are no metrics in what this prints:\n%s%s", b.section, b.script, output)
			}
		}
	})
}

// TestCommandsForTelegraf runs telegraf.md as someone who has installed the package and Telegraf.
// TestInsideTelegraf of cmd/sockwatch runs a real Telegraf.
func TestCommandsForTelegraf(t *testing.T) {
	if os.Getenv("SOCKWATCH_BOOTED") == "" {
		need(t, "setcap")
	}
	files := debs(t)
	if files != nil {
		files["telegraf.md"] = "../../docs/telegraf.md"
	}
	booted(t, "", files, func(t *testing.T) {
		must(t, "dpkg -i /current.deb; useradd --system telegraf")
		const asTelegraf = "echo | setpriv --reuid telegraf --regid telegraf --init-groups "
		if got, want := refused(t, "set -o pipefail; "+asTelegraf+"sockwatch execd"), "E! sockwatch: run as root, or as a member of the group that owns the configuration"; !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		for _, b := range blocks(t, "/telegraf.md") {
			must(t, "set -euo pipefail\n"+b.script)
		}
		prints(t, "systemctl is-active sockwatch", "inactive")
		must(t, "systemd-run --unit=other /packagetest listen 127.0.0.1:7777")
		const owner = " execd 2>/dev/null | grep '^tcp_listen,.*port=7777' | grep -o 'owner=[a-z]*'"
		eventually(t, asTelegraf+"sockwatch"+owner, "owner=unreadable")
		eventually(t, asTelegraf+"sockwatch-telegraf"+owner, "owner=resolved")
	})
}
