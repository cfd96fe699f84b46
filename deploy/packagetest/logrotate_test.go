package packagetest

import (
	"os"
	"regexp"
	"runtime"
	"testing"
)

// TestLogrotateRotatesTheLogOfTheService runs a real logrotate on the service's own folder, with both configurations
// of operate.md: the archive has the name that the document says, and the service goes on in a
// new file.
func TestLogrotateRotatesTheLogOfTheService(t *testing.T) {
	files := map[string]string{}
	if os.Getenv("SOCKWATCH_BOOTED") == "" {
		need(t, "logrotate")
		build(t)
		files["current.deb"] = one(t, built.current+"/*_"+runtime.GOARCH+".deb")
		files["operate.md"] = "../../docs/operate.md"
	}
	booted(t, "", files, func(t *testing.T) {
		must(t, "apt-get install -y /current.deb && sed -i 's/^\\[agent\\]$/&\\n  interval = \"1s\"/' /etc/sockwatch/sockwatch.toml && systemctl reload sockwatch")
		const path = "/var/log/sockwatch/events.jsonl"
		port := "4"
		event := func() { // a listener that opens
			must(t, "systemd-run -q --unit=opens-"+port+" --socket-property=ListenStream="+port+" /bin/true")
			eventually(t, "cat "+path, `"port":"`+port+`"`)
			port += "0"
		}
		scripts := regexp.MustCompile("(?ms)^```sh\n(sed -i [^`]*?/etc/logrotate.d/sockwatch.*?)^```").FindAllStringSubmatch(must(t, "cat /operate.md"), -1)
		archives := []string{`events\.jsonl\.1`, `events\.jsonl\.\d{4}-\d\d-\d\d-\d+`}
		if len(scripts) != len(archives) {
			t.Fatalf("operate.md has %d scripts about logrotate, want %d", len(scripts), len(archives))
		}
		for i, archive := range archives {
			must(t, scripts[i][1])
			event()
			must(t, "logrotate --force /etc/logrotate.d/sockwatch")
			if names := must(t, "ls /var/log/sockwatch"); !regexp.MustCompile(`(?m)^` + archive + `$`).MatchString(names) {
				t.Errorf("there is no archive %s:\n%s", archive, names)
			}
			refused(t, "test -e "+path)
			event()
			prints(t, "stat -c '%a %U:%G' "+path, "640 sockwatch:sockwatch")
		}
	})
}
