package browsertest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

var screenshots = flag.String("screenshots", "", "take screenshots of a busy host, and write them to this folder")

// TestScreenshots looks at a host with everything that the page can show. It needs root, and
// a cgroup hierarchy of systemd to put services into.
func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("it runs only with -screenshots DIR")
	}
	for _, a := range []string{"203.0.113.7/32", "10.0.3.7/32", "169.254.12.1/32"} {
		if out, err := exec.Command("ip", "address", "add", a, "dev", "lo").CombinedOutput(); err != nil {
			t.Fatalf("ip address add %s: %v\n%s", a, err, out)
		}
	}
	service(t, "sshd", "system.slice/ssh.service", "0.0.0.0:22", "[::]:22")
	web := service(t, "nginx", "system.slice/nginx.service", "0.0.0.0:80", "0.0.0.0:443")
	service(t, "exim4", "system.slice/exim4.service", "127.0.0.1:25")
	service(t, "postgres", "system.slice/postgresql@15-main.service", "127.0.0.1:5432")
	service(t, "redis-server", "system.slice/redis-server.service", "10.0.3.7:6379")
	service(t, "node_exporter", "system.slice/prometheus-node-exporter.service", "10.0.3.7:9100")
	service(t, "cupsd", "system.slice/cups.service", "127.0.0.1:631")
	queue := service(t, "api", "docker/3f9a2b77c1de4a0b9d1e2f3a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e", "0.0.0.0:8443")
	for i := range 16 {
		service(t, fmt.Sprint("worker-", i), fmt.Sprintf("system.slice/app-worker@%d.service", i), fmt.Sprint("127.0.0.1:", 9000+i))
	}
	startProgram(t, `
[[inputs.tcp_listen]]
  established = true
  settle = "1s"
  unlisted = "unexpected"
[[inputs.tcp_listen.expect]]
  name = "web"
  port = [80, 443]
  process = "nginx"
[[inputs.tcp_listen.expect]]
  name = "backup"
  port = 9102
[[inputs.tcp_listen.forbid]]
  name = "telnet"
  port = 23
[[inputs.tcp_listen.allow]]
  name = "ssh"
  port = 22
  process = "sshd"
[[inputs.tcp_listen.allow]]
  name = "workers"
  port = "9000-9099"
  process = "worker-*"
[[inputs.tcp_listen.allow]]
  name = "databases"
  port = [5432, 6379]
[[inputs.tcp_listen.allow]]
  name = "local"
  exposure = "loopback"
`)
	tb := newTab(t, origin)
	tb.look(1280, 860, false)
	tb.open(origin + "/")
	time.Sleep(2500 * time.Millisecond)
	old := service(t, "metrics", "system.slice/metrics.service", "127.0.0.1:9090")
	tb.wait(events("127.0.0.1:9090") + ".length")
	telnet := service(t, "busybox", "user.slice/user-1000.slice/session-4.scope", "0.0.0.0:23", "169.254.12.1:8080")
	old.stop()
	web.stop()
	web.start("0.0.0.0:80", "0.0.0.0:443")
	web.join("system.slice/nginx.service")
	queue.do("fill 127.0.0.1:8443 3000")
	web.do("fill 127.0.0.1:443 700")
	telnet.do("fill 127.0.0.1:22 3")
	tb.wait(`document.querySelectorAll("tr[data-mark=changed]").length >= 2 && document.querySelector("tr[data-mark=closed]") && document.querySelector(".alert-forbidden")`)
	tb.wait(events("0.0.0.0:443") + `[0] === "restarted"`)
	tb.wait(events("127.0.0.1:9090") + `[0] === "closed"`)
	listener := eval[string](tb, row("0.0.0.0:443")+`.querySelector("a").href`)
	for _, page := range []struct{ name, url string }{{"page", ""}, {"events", origin + "/events"}, {"health", origin + "/health"}, {"listener", listener}} {
		if page.url != "" {
			tb.do(chromedp.Navigate(page.url))
		}
		for _, v := range views {
			tb.look(v.width, v.height, v.dark)
			time.Sleep(300 * time.Millisecond) // it is painted
			image, err := chromedp.Run(tb.ctx, chromedp.CaptureScreenshot())
			if err != nil {
				t.Fatal(err)
			}
			name := page.name + "-" + strings.ReplaceAll(v.name, " ", "-") + ".png"
			if err := os.WriteFile(filepath.Join(*screenshots, name), image, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// service starts a process in a cgroup.
func service(t *testing.T, name, cgroup string, addresses ...string) *child {
	t.Helper()
	c := startChild(t, name)
	c.join(cgroup)
	for _, a := range addresses {
		c.do("open " + a)
	}
	return c
}

// join moves a process into a cgroup.
func (c *child) join(cgroup string) {
	c.t.Helper()
	dir := filepath.Join("/sys/fs/cgroup/systemd", cgroup)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, c.cmd.Process.Pid), 0o644); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		for ; dir != "/sys/fs/cgroup/systemd"; dir = filepath.Dir(dir) {
			os.Remove(dir) // unless it is in use
		}
	})
}
