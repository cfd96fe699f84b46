//go:build unix

package influxdb

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest/servertest"
	"sockwatch/outputs/internal/push/pushtest"
)

// A deadLetter is a rejected record and the reason.
type deadLetter struct{ Record, Error string }

// deliver pushes records as the agent does by the contract of a Pusher: records that
// a RejectedError names leave the queue; others that are rejected or too large are
// bisected until each is alone.
func deliver(t testing.TB, out *output, records [][]byte) (dead []deadLetter, pushes int) {
	t.Helper()
	reject := func(record []byte, err error) { dead = append(dead, deadLetter{string(record), err.Error()}) }
	n := len(records)
	for len(records) > 0 {
		n = min(n, len(records))
		pushes++
		err := out.Push(t.Context(), records[:n])
		rejected, isRejected := errors.AsType[*plugin.RejectedError](err)
		switch {
		case isRejected && len(rejected.Records) > 0:
			var others [][]byte
			for i, r := range records[:n] {
				if reason, ok := rejected.Records[i]; ok {
					reject(r, reason)
				} else if !rejected.OthersStored {
					others = append(others, r)
				}
			}
			records = append(others, records[n:]...)
			n = len(records)
		case err == nil:
			records = records[n:]
			n = len(records)
		case !isRejected && !errors.Is(err, plugin.ErrRejected) && !errors.Is(err, plugin.ErrTooLarge):
			t.Fatal(err)
		case n == 1:
			reject(records[0], err)
			records = records[1:]
			n = len(records)
		default:
			n /= 2
		}
	}
	return dead, pushes
}

// count returns how many points of a measurement a real influxd has.
func count(t testing.TB, server *servertest.Server, field, measurement string) int {
	t.Helper()
	rows := query(t, server, fmt.Sprintf("SELECT count(%s) FROM %s", field, measurement))
	if len(rows) == 0 {
		return 0
	}
	n, err := rows[0]["count"].(json.Number).Int64()
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

// numbered returns n records of a measurement, one second after the other.
func numbered(t testing.TB, out *output, name string, n int) [][]byte {
	t.Helper()
	var points []metric.Point
	for i := range n {
		points = append(points, metric.Point{Name: name, Time: at.Add(time.Duration(i) * time.Second),
			Fields: []metric.Field{{Key: "v", Value: metric.Int(int64(i))}}})
	}
	return encode(t, out, points...)
}

// TestOneBadLineOfAThousandIsFound: a real influxd rejects one of 1,000 records.
func TestOneBadLineOfAThousandIsFound(t *testing.T) {
	server := servertest.Influxd(t)
	query(t, server, "CREATE DATABASE sockwatch")
	out, _ := newOutput(t, v1(server.URL))
	for _, tt := range []struct {
		bad, err  string
		maxPushes int
	}{
		{bad: `m v=1u 1795341600000000000`, err: `unable to parse 'm v=1u 1795341600000000000': invalid number`, maxPushes: 1},
		{bad: `m,t= v=1i 1795341600000000000`, err: `unable to parse 'm,t= v=1i 1795341600000000000': missing tag value`, maxPushes: 1},
		{bad: `m v=0.5 1795341605000000000`, maxPushes: 64,
			err: `partial write: field type conflict: input field "v" on measurement "m" is type float, already exists as type integer dropped=1`},
	} {
		query(t, server, "DROP MEASUREMENT m")
		records := numbered(t, out, "m", 1000)
		records[617] = []byte(tt.bad)
		dead, pushes := deliver(t, out, records)
		want := []deadLetter{{tt.bad, server.URL + ": 400 Bad Request: " + tt.err}}
		if diff := cmp.Diff(want, dead); diff != "" {
			t.Errorf("dead letters (-want +got)\n%s", diff)
		}
		if n := count(t, server, "v", "m"); n != 999 {
			t.Errorf("%d points stored, want 999", n)
		}
		if pushes > tt.maxPushes {
			t.Errorf("%d pushes to find one record, want at most %d", pushes, tt.maxPushes)
		}
	}
}

// TestPointsBeyondRetentionAreRejectedAtOnce: a real influxd rejects all points as too old.
func TestPointsBeyondRetentionAreRejectedAtOnce(t *testing.T) {
	server := servertest.Influxd(t)
	query(t, server, "CREATE DATABASE sockwatch WITH DURATION 1h")
	out, _ := newOutput(t, v1(server.URL))
	old := metric.Point{Name: "m", Time: time.Now().Add(-48 * time.Hour), Fields: []metric.Field{{Key: "v", Value: metric.Int(1)}}}
	fresh := old
	fresh.Time = time.Now()
	var records [][]byte
	for i := range 100 {
		old.Time = old.Time.Add(time.Duration(i))
		records = append(records, encode(t, out, old)...)
	}
	dead, pushes := deliver(t, out, records)
	if len(dead) != 100 || pushes != 1 {
		t.Fatalf("%d dead letters after %d pushes, want all 100 after one", len(dead), pushes)
	}
	if want := server.URL + ": 400 Bad Request: partial write: points beyond retention policy dropped=100"; dead[0].Error != want {
		t.Errorf("error\n%s, want\n%s", dead[0].Error, want)
	}
	err := out.Push(t.Context(), append(records[:2:2], encode(t, out, fresh)...))
	if want := server.URL + ": 400 Bad Request: partial write: points beyond retention policy dropped=2 (rejected)"; fmt.Sprint(err) != want {
		t.Errorf("error\n%v, want\n%s", err, want)
	}
	if n := count(t, server, "v", "m"); n != 1 {
		t.Errorf("%d points stored, want the fresh one", n)
	}
}

// TestMissingDatabaseOfARealServerIsCreated: a real influxd without the database creates it,
// unless the options say not to.
func TestMissingDatabaseOfARealServerIsCreated(t *testing.T) {
	server := servertest.Influxd(t)
	o := v1(server.URL)
	o.SkipDatabaseCreation = true
	out, _ := newOutput(t, o)
	err := send(t, out, "m v=1i 1795341600000000000")
	want := server.URL + `: 404 Not Found: database not found: "sockwatch": create database "sockwatch", or check urls`
	if fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
		t.Fatalf("%s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
	}
	out, _ = newOutput(t, v1(server.URL))
	if err := send(t, out, "m v=1i 1795341600000000000"); err != nil {
		t.Error(err)
	}
	if n := count(t, server, "v", "m"); n != 1 {
		t.Errorf("%d points stored, want 1", n)
	}

	o = v1(server.URL)
	o.RetentionPolicy = "nosuch"
	out, _ = newOutput(t, o)
	if err := send(t, out, "m v=1i 1795341600000000000"); pushtest.Kind(err) != "kept" || !strings.Contains(fmt.Sprint(err), "nosuch") {
		t.Errorf("a missing retention policy: %s: %v", pushtest.Kind(err), err)
	}
}

// TestTooLargeBodyIsBisected: a real influxd has a small limit. The bisect finds the size
// that fits, and a single point that is larger is given up.
func TestTooLargeBodyIsBisected(t *testing.T) {
	server := servertest.Influxd(t, "max-body-size = 2000")
	query(t, server, "CREATE DATABASE sockwatch")
	o := v1(server.URL)
	o.ContentEncoding = "identity"
	out, _ := newOutput(t, o)
	records := numbered(t, out, "m", 500)
	huge := fmt.Sprintf(`m s="%s" 1795341600000000000`, strings.Repeat("x", 3000))
	records[250] = []byte(huge)
	dead, _ := deliver(t, out, records)
	if len(dead) != 1 || dead[0].Record != huge || !strings.HasPrefix(dead[0].Error, server.URL+": 413 Request Entity Too Large") {
		t.Errorf("dead letters %.200v", dead)
	}
	if n := count(t, server, "v", "m"); n != 499 {
		t.Errorf("%d points stored, want 499", n)
	}
}

// TestPointsWaitForTheRightToWrite: a real influxd requires a password, and a user may not
// write.
func TestPointsWaitForTheRightToWrite(t *testing.T) {
	t.Parallel()
	server := servertest.Influxd(t, "auth-enabled = true")
	admin := server.URL + "/query?u=root&p=r00t&q="
	do(t, http.MethodPost, server.URL+"/query?q="+url.QueryEscape(`CREATE USER root WITH PASSWORD 'r00t' WITH ALL PRIVILEGES`), http.StatusOK)
	for _, q := range []string{"CREATE DATABASE sockwatch", "CREATE USER w WITH PASSWORD 's3cret'"} {
		do(t, http.MethodPost, admin+url.QueryEscape(q), http.StatusOK)
	}
	o := v1(server.URL)
	o.Username, o.Password = "w", "wrong"
	out, _ := newOutput(t, o)
	err := send(t, out, "m v=1i 1795341600000000000")
	if want := server.URL + ": 401 Unauthorized: authorization failed: check username and password"; fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
		t.Errorf("%s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
	}
	o.Password = "s3cret"
	out, _ = newOutput(t, o)
	err = send(t, out, "m v=1i 1795341600000000000")
	if want := server.URL + `: 403 Forbidden: "w" user is not authorized to write to database "sockwatch": allow writing to database "sockwatch"`; fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
		t.Errorf("%s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
	}
	do(t, http.MethodPost, admin+url.QueryEscape("GRANT WRITE ON sockwatch TO w"), http.StatusOK)
	if err := send(t, out, "m v=1i 1795341600000000000"); err != nil {
		t.Error(err)
	}

	o.Database = "another"
	out, _ = newOutput(t, o)
	err = send(t, out, "m v=1i 1795341600000000000")
	want := server.URL + `: 404 Not Found: database not found: "another": CREATE DATABASE: 403 Forbidden: error authorizing query: w not authorized to execute statement 'CREATE DATABASE another', requires admin privilege: create database "another", or check urls`
	if fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
		t.Errorf("%s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
	}
}

// TestRealServersGetEachPointOnceAfterAnOutage stops and starts real servers: the same records are
// sent again, and each is there once.
func TestRealServersGetEachPointOnceAfterAnOutage(t *testing.T) {
	t.Run("influxd", func(t *testing.T) {
		server := servertest.Influxd(t)
		query(t, server, "CREATE DATABASE sockwatch")
		out, _ := newOutput(t, v1(server.URL))
		records := numbered(t, out, "m", 100)
		if err := out.Push(t.Context(), records[:60]); err != nil {
			t.Fatal(err)
		}
		server.Stop()
		if err := out.Push(t.Context(), records); pushtest.Kind(err) != "kept" {
			t.Fatalf("no server: %s: %v", pushtest.Kind(err), err)
		}
		server.Start()
		for range 2 {
			if err := out.Push(t.Context(), records); err != nil {
				t.Fatal(err)
			}
		}
		if n := count(t, server, "v", "m"); n != 100 {
			t.Errorf("%d points stored, want 100", n)
		}
	})
	t.Run("victoria-metrics", func(t *testing.T) {
		server := servertest.VictoriaMetrics(t)
		o := Defaults()
		o.URLs, o.Organization, o.Bucket = []string{server.URL}, "o", "b"
		out, _ := newOutput(t, o)
		records := numbered(t, out, "m", 100)
		server.Stop()
		if err := out.Push(t.Context(), records); pushtest.Kind(err) != "kept" {
			t.Fatalf("no server: %s: %v", pushtest.Kind(err), err)
		}
		server.Start()
		if err := out.Push(t.Context(), records); err != nil {
			t.Fatal(err)
		}
		series := exported(t, server, "m_v", 100)
		if len(series) != 1 || len(series[0].Values) != 100 || series[0].Values[99] != 99 {
			t.Errorf("series %v", series)
		}
	})
}
