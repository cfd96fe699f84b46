package packagetest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// fleetScripts returns the scripts of install.md about the playbook: what it needs, the run, and an alert.
func fleetScripts(t *testing.T, document string) (needs, play, alert string) {
	t.Helper()
	all := regexp.MustCompile("(?ms)^```sh fleet\n(.*?)^```").FindAllStringSubmatch(must(t, "cat "+document), -1)
	if len(all) != 3 {
		t.Fatalf("%s has %d scripts, want 3", document, len(all))
	}
	return all[0][1], all[1][1], all[2][1]
}

// TestFleetFromPackageToAlert runs the commands of install.md with this machine as the fleet and as the
// host of Prometheus. Grafana is not run: a unit of its name shows that it is restarted.
func TestFleetFromPackageToAlert(t *testing.T) {
	files := map[string]string{}
	if os.Getenv("SOCKWATCH_BOOTED") == "" {
		for _, program := range []string{"ansible-playbook", "prometheus", "promtool"} {
			need(t, program)
		}
		build(t)
		files["sockwatch_0_"+runtime.GOARCH+".deb"] = one(t, built.current+"/*_"+runtime.GOARCH+".deb")
		files["install.md"] = "../../docs/install.md"
		files["deploy.tar"] = filepath.Join(t.TempDir(), "deploy.tar")
		must(t, "tar -cf "+files["deploy.tar"]+" -C ../.. --exclude=sockwatch.password --exclude=certificates deploy/ansible deploy/prometheus deploy/grafana")
	}
	const prepare = `
mkdir -p "$R"/source/out "$R"/etc/grafana/provisioning/dashboards
tar -xf "$R"/deploy.tar -C "$R"/source
mv "$R"/sockwatch_0_*.deb "$R"/source/out
printf '[Service]\nExecStart=/bin/sleep infinity\n' >"$R"/etc/systemd/system/grafana-server.service
mkdir -p "$R"/etc/systemd/system/prometheus.service.d
printf '[Service]\nPrivateUsers=no\n' >"$R"/etc/systemd/system/prometheus.service.d/boot.conf # a chroot has no user namespaces
rm -rf "$R"/var/lib/prometheus/metrics2/*`
	booted(t, prepare, files, func(t *testing.T) {
		must(t, "systemctl start prometheus grafana-server")
		restarted := must(t, "systemctl show -P MainPID grafana-server")
		write(t, "/source/deploy/ansible/inventory.ini", "[sockwatch]\nlocalhost ansible_connection=local\n[monitoring]\nlocalhost ansible_connection=local\n")
		needs, play, alert := fleetScripts(t, "/install.md")
		const build = "deploy/package.sh out\n" // as the test has done already
		if !strings.HasSuffix(needs, build) {
			t.Errorf("%q does not end with %q", needs, build)
		}
		must(t, strings.TrimSuffix(needs, build))

		// Without a package, or with an older one beside it, the play says so before it changes anything.
		for count, prepare := range []string{"mv /source/out/sockwatch_0_*.deb /source/", "mv /source/sockwatch_0_*.deb /source/out/; touch /source/out/sockwatch_00_" + runtime.GOARCH + ".deb"} {
			must(t, prepare)
			want := fmt.Sprintf("The folder out has %d packages for %s, want one: run deploy/package.sh out, or remove the older ones.", 2*count, runtime.GOARCH)
			if said := refused(t, "cd /source && "+play); !strings.Contains(said, want) || !strings.Contains(said, "changed=0") {
				t.Errorf("it says %s\nwant %q", said, want)
			}
		}
		must(t, "rm /source/out/sockwatch_00_*.deb")

		first := must(t, "cd /source && "+play)
		if strings.Contains(first, "[WARNING]") {
			t.Errorf("the first run warns:\n%s", first)
		}
		eventually(t, "systemctl is-active sockwatch", "active")
		prints(t, "stat -c '%a %U:%G' /etc/sockwatch/web/web.yml /etc/sockwatch/web/server.key /etc/sockwatch/sockwatch.toml /etc/prometheus/sockwatch/password",
			"640 root:sockwatch\n640 root:sockwatch\n640 root:sockwatch\n640 root:prometheus")
		prints(t, "curl -s -o /dev/null -w '%{http_code}' --cacert /etc/sockwatch/web/server.crt https://localhost:8088/metrics", "401")
		refused(t, "curl -sf http://localhost:8088/metrics")
		if pid := must(t, "systemctl show -P MainPID grafana-server"); pid == restarted {
			t.Error("Grafana was not restarted with the new dashboard")
		}
		var dashboard struct{ UID string }
		if err := json.Unmarshal([]byte(must(t, "cat /var/lib/grafana/dashboards/sockwatch/*.json")), &dashboard); err != nil || dashboard.UID != "sockwatch" {
			t.Errorf("the dashboard is %q (%v)", dashboard.UID, err)
		}

		second := must(t, "cd /source && "+play)
		if !strings.Contains(second, "changed=0") || !strings.Contains(second, "failed=0") {
			t.Errorf("a second run changes something:\n%s", second)
		}

		// A configuration with an error is refused, and the running one stays in force.
		must(t, "cp -a /source /broken && sed -i 's/listen = /lisen = /' /broken/deploy/ansible/sockwatch.toml")
		if said := refused(t, "cd /broken && "+play); !strings.Contains(said, `unknown option \"lisen\"`) {
			t.Errorf("the error is not shown:\n%s", said)
		}
		must(t, "grep -q '^  listen = ' /etc/sockwatch/sockwatch.toml")
		prints(t, "systemctl is-active sockwatch", "active")

		shown := must(t, alert)
		var alerts struct {
			Data struct {
				Alerts []struct {
					Labels map[string]string
					State  string
				}
			}
		}
		if err := json.Unmarshal([]byte(shown[strings.Index(shown, "{"):]), &alerts); err != nil {
			t.Fatalf("%v: %s", err, shown)
		}
		var found bool
		for _, a := range alerts.Data.Alerts {
			found = found || a.Labels["alertname"] == "ListenerNotAllowed" && a.Labels["port"] == "23"
			if name := a.Labels["alertname"]; name == "ExpectedListenerMissing" || name == "SockwatchDown" {
				t.Errorf("%s is %s", name, a.State)
			}
		}
		if !found {
			t.Errorf("there is no alert about port 23: %s", shown)
		}
	})
}
