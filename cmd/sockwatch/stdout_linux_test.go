package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A command whose data is lost fails, and says so. Discarding the data on purpose is not an
// error.
func TestDataThatIsLost(t *testing.T) {
	if testing.Short() {
		t.Skip("runs each command with each redirection")
	}
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	config := writeFile(t, t.TempDir(), "s.toml", smallConfig)
	allowed := writeFile(t, t.TempDir(), "s.toml", "[[inputs.tcp_listen]]\n[[inputs.tcp_listen.allow]]\nport = \"1-65535\"\n")
	commands := []string{"check --live --json --config " + allowed, "list", "version"}
	if !testing.Short() {
		commands = append(commands, "check --live --config "+allowed, "list --json", "check --config "+config, "config", "test --config "+config, "--help", "check --help")
	}
	for _, command := range commands {
		for _, test := range []struct {
			redirect string
			want     result
		}{
			{">&-", result{1, "", "sockwatch: standard output was closed, or is /dev/null, when the program started\n"}},
			{">/dev/full", result{1, "", "sockwatch: write /dev/stdout: no space left on device\n"}},
			{">/dev/null", result{0, "", ""}},
			{"<>/dev/null >&0", result{0, "", ""}},
		} {
			t.Run(command+" "+test.redirect, func(t *testing.T) {
				t.Parallel()
				var stderr strings.Builder
				cmd := exec.Command("/bin/sh", "-c", "exec "+exe+" "+command+" "+test.redirect)
				cmd.Env = append(os.Environ(), "SOCKWATCH_TEST_BE=sockwatch", "SOCKWATCH_CONFIG=")
				cmd.Stderr = &stderr
				cmd.Run()
				// Whether all owners can be read depends on the host.
				log := regexp.MustCompile(`(?m)^sockwatch: (some )?owners .*\n`).ReplaceAllString(stderr.String(), "")
				if diff := cmp.Diff(test.want, result{cmd.ProcessState.ExitCode(), "", log}); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	}
}
