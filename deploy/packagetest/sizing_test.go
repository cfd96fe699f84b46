package packagetest

import (
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// sizedListeners is the number of listeners of the host that operate.md describes.
const sizedListeners = 42

// TestSizing checks the table of operate.md, for a host with 42 listeners of 42 services: series
// within 2 %, bytes within 15 %, and what depends on the machine as upper limits. What a database stores in a day
// is measured with the points of 20 gathers, repeated with other times, after the database has
// merged its files. To see the figures:
//
//	cd deploy && go test ./packagetest -run Sizing -v
func TestSizing(t *testing.T) {
	files := map[string]string{}
	if os.Getenv("SOCKWATCH_BOOTED") == "" {
		need(t, "influxd")
		need(t, "victoria-metrics")
		build(t)
		files["current.deb"] = one(t, built.current+"/*_"+runtime.GOARCH+".deb")
		files["operate.md"] = "../../docs/operate.md"
	}
	booted(t, "", files, func(t *testing.T) {
		document := must(t, "cat /operate.md")
		for i := range sizedListeners - 1 { // the last one is sockwatch's own
			must(t, fmt.Sprintf("systemd-run -q --unit=service-%02d /packagetest listen 0.0.0.0:%d", i, 8100+i))
		}
		must(t, "apt-get install -y /current.deb")
		got := map[string][2]float64{}
		got["series"] = [2]float64{series(t), 0}
		cpu, memory := consumed(t)
		got["CPU time"], got["private memory"] = [2]float64{cpu, unmeasured}, [2]float64{memory, unmeasured}

		all, few := recorded(t, ""), recorded(t, leanFilters(t, document))
		got["InfluxDB"] = [2]float64{inInflux(t, all.influx), inInflux(t, few.influx)}
		got["VictoriaMetrics"] = [2]float64{inVictoriaMetrics(t, all.influx), inVictoriaMetrics(t, few.influx)}
		got["JSON lines"] = [2]float64{all.json * gathersADay, few.json * gathersADay}

		event := eventSize(t)
		got["one event"] = [2]float64{event, unmeasured}
		write(t, "/etc/sockwatch/sockwatch.toml", leanConfiguration(t, document))
		must(t, "systemctl restart sockwatch")
		got["series"] = [2]float64{got["series"][0], series(t)}
		for name, values := range got {
			t.Logf("%s: %.0f, lean %.0f", name, values[0], values[1])
			checkFigures(t, document, name, values)
		}
	})
}

// gathersADay is how often an input gathers in a day, at an interval of 10 s.
const gathersADay = 24 * 3600 / 10

// eventSize returns the length of the line about a listener that opens.
func eventSize(t *testing.T) float64 {
	t.Helper()
	must(t, "systemd-run -q --unit=service-new /packagetest listen 0.0.0.0:8443")
	eventually(t, "cat /var/log/sockwatch/events.jsonl", `"port":"8443"`)
	must(t, "systemctl stop service-new")
	n, err := strconv.ParseFloat(must(t, `grep '"port":"8443"' /var/log/sockwatch/events.jsonl | head -1 | wc -c`), 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// series waits for all listeners and returns how many series the page has.
func series(t *testing.T) float64 {
	t.Helper()
	eventually(t, "curl -s http://127.0.0.1:8088/metrics | grep -c '^tcp_listen_sockets{'", strconv.Itoa(sizedListeners))
	n, err := strconv.ParseFloat(must(t, "curl -s http://127.0.0.1:8088/metrics | grep -vc '^#'"), 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// consumed returns the CPU time that the service uses in an hour, in seconds, and its private
// memory in bytes: measured for a minute with an interval of 10 s and as many scrapes.
func consumed(t *testing.T) (cpu, memory float64) {
	t.Helper()
	pid := must(t, "systemctl show -P MainPID sockwatch")
	before := cpuTime(t, pid)
	for range 6 {
		time.Sleep(10 * time.Second)
		must(t, "curl -s --compressed http://127.0.0.1:8088/metrics")
	}
	status := must(t, "awk '/^RssAnon/ { print $2 * 1024 }' /proc/"+pid+"/status")
	memory, err := strconv.ParseFloat(status, 64)
	if err != nil {
		t.Fatal(err)
	}
	return (cpuTime(t, pid) - before).Seconds() * 60, memory
}

// cpuTime returns the CPU time of a process.
func cpuTime(t *testing.T, pid string) time.Duration {
	t.Helper()
	text := must(t, "awk '{ n += $1 } END { printf \"%d\", n }' /proc/"+pid+"/task/*/schedstat")
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(n)
}

// A record is what outputs with some filters got of each gather.
type record struct {
	influx [][]string // the lines of each gather, without their times
	json   float64    // the bytes of a gather, on average
}

// recorded runs the service with two more outputs for 20 gathers.
func recorded(t *testing.T, filters string) record {
	t.Helper()
	const dir = "/var/lib/sockwatch/sizing"
	must(t, "systemctl stop sockwatch && rm -rf "+dir+" && install -d -o sockwatch "+dir)
	var outputs strings.Builder
	for _, format := range []string{"influx", "json"} {
		fmt.Fprintf(&outputs, "[[outputs.file]]\n alias = %q\n path = \"%s/%s\"\n data_format = %q\n%s\n", "sizing-"+format, dir, format, format, filters)
	}
	write(t, "/etc/sockwatch/sockwatch.d/sizing.toml", outputs.String())
	must(t, "cp -p /etc/sockwatch/sockwatch.toml /kept.toml && sed -i 's/^\\[agent\\]$/&\\ninterval = \"1s\"/' /etc/sockwatch/sockwatch.toml")
	must(t, "systemctl start sockwatch && sleep 22 && systemctl stop sockwatch")
	must(t, "rm /etc/sockwatch/sockwatch.d/sizing.toml && mv /kept.toml /etc/sockwatch/sockwatch.toml && systemctl start sockwatch")

	var r record
	second := ""
	for line := range strings.Lines(must(t, "cat "+dir+"/influx")) {
		end := strings.LastIndexByte(line, ' ')
		if at := line[end+1:][:10]; at != second {
			second = at
			r.influx = append(r.influx, nil)
		}
		last := &r.influx[len(r.influx)-1]
		*last = append(*last, line[:end])
	}
	if len(r.influx) < 18 {
		t.Fatalf("%d gathers were recorded", len(r.influx))
	}
	lines, err := os.Stat(dir + "/json")
	if err != nil {
		t.Fatal(err)
	}
	r.json = float64(lines.Size()) / float64(len(r.influx))
	r.influx = r.influx[2 : len(r.influx)-2] // without events of the start, and cut gathers
	return r
}

// inInflux returns the bytes that InfluxDB 1.x stores for a day.
func inInflux(t *testing.T, gathers [][]string) float64 {
	t.Helper()
	const dir = "/sizing-influx"
	must(t, "rm -rf "+dir)
	write(t, dir+"/influxdb.conf", `
reporting-disabled = true
bind-address = "127.0.0.1:18088"
[meta]
  dir = "`+dir+`/meta"
[data]
  dir = "`+dir+`/data"
  wal-dir = "`+dir+`/wal"
  cache-snapshot-write-cold-duration = "1s"
  compact-full-write-cold-duration = "1s"
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:18086"
  log-enabled = false
`)
	must(t, "systemd-run -q --unit=sizing-influx influxd -config "+dir+"/influxdb.conf")
	defer must(t, "systemctl stop sizing-influx")
	eventually(t, "curl -s -XPOST 'http://127.0.0.1:18086/query?q=CREATE+DATABASE+db'", "statement_id")
	post(t, "http://127.0.0.1:18086/write?db=db", gathers)
	complete(t, "curl -sG http://127.0.0.1:18086/query --data-urlencode db=db --data-urlencode 'q=SELECT count(sockets) FROM tcp_listen'", `,(\d+)\]`)
	return settled(t, dir+"/data/db/autogen", dir+"/wal") // without _series, which begins with 32 MB for every database
}

// inVictoriaMetrics returns the bytes that VictoriaMetrics stores for a day.
func inVictoriaMetrics(t *testing.T, gathers [][]string) float64 {
	t.Helper()
	const dir = "/sizing-vm"
	must(t, "rm -rf "+dir)
	must(t, "systemd-run -q --unit=sizing-vm victoria-metrics -storageDataPath="+dir+" -httpListenAddr=127.0.0.1:18428 -retentionPeriod=10y")
	eventually(t, "curl -s http://127.0.0.1:18428/health", "OK")
	post(t, "http://127.0.0.1:18428/write", gathers)
	must(t, "curl -sf http://127.0.0.1:18428/internal/force_flush")
	complete(t, "curl -sG http://127.0.0.1:18428/api/v1/query --data-urlencode 'query=sum(count_over_time(tcp_listen_sockets[3d]))'", `,"(\d+)"\]`)
	must(t, "curl -sf http://127.0.0.1:18428/internal/force_merge && sleep 3")
	must(t, "systemctl stop sizing-vm")
	return size(t, dir+"/data") + size(t, dir+"/indexdb")
}

// post writes a day of gathers to a server.
func post(t *testing.T, address string, gathers [][]string) {
	t.Helper()
	start := time.Now().Truncate(24 * time.Hour).Add(-24 * time.Hour)
	var body strings.Builder
	for i := range gathersADay {
		at := strconv.FormatInt(start.Add(time.Duration(i)*10*time.Second).UnixNano(), 10)
		for _, line := range gathers[i%len(gathers)] {
			body.WriteString(line + " " + at + "\n")
		}
		if i%200 < 199 && i < gathersADay-1 {
			continue
		}
		resp, err := http.Post(address, "text/plain", strings.NewReader(body.String()))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent {
			t.Fatalf("%s: %s", address, resp.Status)
		}
		body.Reset()
	}
}

// complete checks that a database counts as many points of tcp_listen as a day has.
func complete(t *testing.T, count, number string) {
	t.Helper()
	answer := must(t, count)
	m := regexp.MustCompile(number).FindStringSubmatch(answer)
	if m == nil {
		t.Fatalf("%s: %s", count, answer)
	}
	if want := strconv.Itoa(sizedListeners * gathersADay); m[1] != want {
		t.Errorf("the database has %s points of tcp_listen, want %s", m[1], want)
	}
}

// settled waits until a log is empty and the data has stopped shrinking, and returns its size.
func settled(t *testing.T, data, log string) float64 {
	t.Helper()
	var last float64
	same := 0
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		now := size(t, data)
		if now == last && size(t, log) < 1000 {
			if same++; same == 5 {
				return now
			}
			continue
		}
		last, same = now, 0
	}
	t.Fatalf("%s does not settle: %.0f bytes, log %.0f", data, last, size(t, log))
	return 0
}

// size returns the bytes of all files of a folder.
func size(t *testing.T, dir string) (bytes float64) {
	t.Helper()
	filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // removed meanwhile
		}
		if info, err := entry.Info(); err == nil {
			bytes += float64(info.Size())
		}
		return nil
	})
	return bytes
}

// leanConfiguration returns the lean preset of operate.md.
func leanConfiguration(t *testing.T, document string) string {
	t.Helper()
	m := regexp.MustCompile("(?ms)^```toml\n([^`]*?fieldinclude.*?)^```").FindStringSubmatch(document)
	if m == nil {
		t.Fatal("operate.md has no lean preset")
	}
	return m[1]
}

// leanFilters returns the filters of the points in the lean preset.
func leanFilters(t *testing.T, document string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^  namepass = \["tcp_listen"\]\n  fieldinclude = .*\n`).FindString(leanConfiguration(t, document))
	if m == "" {
		t.Fatal("the lean preset has no filters of tcp_listen")
	}
	return m
}

// unmeasured is the figure of an empty cell.
const unmeasured = -1

// checkFigures checks the row of operate.md's table that begins with a name: "| name | 396 | 120 |", with
// units, and "below" in front of an upper limit.
func checkFigures(t *testing.T, document, name string, got [2]float64) {
	t.Helper()
	row := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(name) + `[^|]*\|([^|]*)\|([^|]*)\|$`).FindStringSubmatch(document)
	if row == nil {
		t.Errorf("operate.md has no row %q: %.0f, lean %.0f", name, got[0], got[1])
		return
	}
	units := map[string]float64{"": 1, "s": 1, "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "MiB": 1 << 20}
	for i, cell := range row[1:] {
		if got[i] == unmeasured {
			if cell != " " {
				t.Errorf("%s: %q is not measured", name, cell)
			}
			continue
		}
		m := regexp.MustCompile(`^ (below )?([0-9.]+) ?(s|B|kB|MB|GB|MiB|) $`).FindStringSubmatch(cell)
		if m == nil {
			t.Errorf("%s: %q is not a figure", name, cell)
			continue
		}
		want, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		want *= units[m[3]]
		tolerance := 0.15 * want
		if name == "series" {
			tolerance = 0.02 * want
		}
		if m[1] != "" && got[i] > want || m[1] == "" && math.Abs(got[i]-want) > tolerance {
			t.Errorf("%s: operate.md says%s, measured %.0f", name, cell, got[i])
		}
	}
}
