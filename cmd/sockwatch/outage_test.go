//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sockwatch/agent/plugin/plugintest/servertest"
)

// A store is a real server, its write API, and a query for the values of all ids that it
// has: none if the server does not answer.
type store struct {
	*servertest.Server
	output string
	stop   func()
	ids    func(t *testing.T) map[string]int64
}

func influxd(t *testing.T) store {
	server := servertest.Influxd(t)
	fetch(t, http.MethodPost, server.URL+"/query?q="+url.QueryEscape("CREATE DATABASE db"), nil)
	return store{Server: server, stop: server.Stop, ids: func(t *testing.T) map[string]int64 {
		ids := map[string]int64{}
		q := url.Values{"db": {"db"}, "epoch": {"ns"}, "chunked": {"true"}, "q": {"SELECT id, value FROM ids GROUP BY host"}}
		err := ask(t, http.MethodPost, server.URL+"/query?"+q.Encode(), func(body io.Reader) error {
			for d := json.NewDecoder(body); ; {
				var answer struct {
					Results []struct {
						Error  string
						Series []struct{ Values [][3]any } // time, id, value
					}
				}
				if err := d.Decode(&answer); err == io.EOF {
					return nil
				} else if err != nil || len(answer.Results) != 1 || answer.Results[0].Error != "" {
					return fmt.Errorf("%v, %v", answer, err)
				}
				for _, s := range answer.Results[0].Series {
					for _, v := range s.Values {
						ids[v[1].(string)] = int64(v[2].(float64))
					}
				}
			}
		})
		if err != nil {
			t.Log(err)
			return nil
		}
		return ids
	}}
}

// victoriaMetrics keeps recent points in memory for some seconds, so it is shut down
// instead of killed.
func victoriaMetrics(t *testing.T) store {
	server := servertest.VictoriaMetrics(t)
	return store{Server: server, stop: server.Shutdown, output: "organization = \"o\"\n  bucket = \"b\"", ids: func(t *testing.T) map[string]int64 {
		ids := map[string]int64{}
		flushed := ask(t, http.MethodGet, server.URL+"/internal/force_flush", nil)
		err := ask(t, http.MethodGet, server.URL+"/api/v1/export?match[]=ids_value&start=0&end="+strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10), func(body io.Reader) error {
			lines := bufio.NewScanner(body)
			for lines.Scan() {
				var series struct {
					Metric struct{ ID string }
					Values []int64
				}
				if err := json.Unmarshal(lines.Bytes(), &series); err != nil {
					return fmt.Errorf("%q: %w", lines.Text(), err)
				}
				ids[series.Metric.ID] = series.Values[0]
			}
			return lines.Err()
		})
		if err := errors.Join(flushed, err); err != nil {
			t.Log(err)
			return nil
		}
		return ids
	}}
}

// fetch sends a request that a server must answer, and reads the answer.
func fetch(t *testing.T, method, address string, read func(io.Reader) error) {
	t.Helper()
	if err := ask(t, method, address, read); err != nil {
		t.Fatal(err)
	}
}

// ask sends a request to a server and reads the answer.
func ask(t *testing.T, method, address string, read func(io.Reader) error) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if read != nil {
		err = read(resp.Body)
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent || err != nil {
		return fmt.Errorf("%s %s: %s, %v", method, address, resp.Status, err)
	}
	return nil
}

// A real server goes away and comes back twice, the second time while the
// program is killed and started again: a query finds every point that was
// queued, with its value, and no other.
func TestOutageOfARealServer(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*testing.T) store{"influxd": influxd, "victoria-metrics": victoriaMetrics} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := open(t)
			text := delivery{state: t.TempDir(), url: server.URL, output: server.output}.String()
			if server.output != "" {
				text = strings.Replace(text, "  database = \"db\"\n", "", 1)
			}
			d := startDaemon(t, text)
			d.awaitQueued(t, 5*idsPerBatch)
			eventually(t, "the first points", func() bool { return len(server.ids(t)) > 0 })

			server.stop()
			d.awaitLog(t, "delivery failed, will retry")
			d.awaitQueued(t, 10*idsPerBatch)
			server.Start()
			d.awaitLog(t, "delivery resumed")

			server.stop()
			d.awaitQueued(t, 10*idsPerBatch)
			d.Process.Kill()
			<-d.exited
			queued := d.queued("outputs.influxdb")
			d = startDaemon(t, text)
			d.awaitQueued(t, 5*idsPerBatch)
			server.Start()
			d.awaitLog(t, "delivery resumed")
			d.awaitQueued(t, 1)
			d.stop(t)
			queued = append(queued, d.queued("outputs.influxdb")...)

			// A server may need a moment to show what it has stored.
			var got map[string]int64
			eventually(t, "every point that was queued", func() bool {
				got = server.ids(t)
				return !slices.ContainsFunc(queued, func(id string) bool {
					_, ok := got[id]
					return !ok
				})
			})
			changed := 0
			for _, id := range queued {
				if got[id] != idValue(id) {
					changed++
				}
				delete(got, id)
			}
			// A kill may keep the log from showing one batch that is queued.
			t.Logf("%d points queued, %d changed, %d that the log does not know", len(queued), changed, len(got))
			if changed > 0 || len(got) > idsPerBatch {
				t.Errorf("changed %d, not known %d", changed, len(got))
			}
		})
	}
}

// A real server rejects some points of every request. They become dead-letter entries with
// its words, all others are stored, and nothing waits behind them.
func TestPartialWritesOfARealServer(t *testing.T) {
	t.Parallel()
	server := servertest.Influxd(t)
	fetch(t, http.MethodPost, server.URL+"/query?q="+url.QueryEscape("CREATE DATABASE db"), nil)
	eventually(t, "a float stored", func() bool {
		resp, err := http.Post(server.URL+"/write?db=db", "text/plain", strings.NewReader("ids,host=h value=0.5\n"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusNoContent
	})
	c := delivery{state: t.TempDir(), url: server.URL, input: `interval = "300ms"`, flush: 400 * time.Millisecond}
	d := startDaemon(t, strings.Replace(c.String(), `namepass = ["ids"]`, `namepass = ["ids", "sockwatch_*"]`, 1))
	d.awaitQueued(t, 10*idsPerBatch)
	d.stop(t)

	queued, missing, good := 0, 0, 0
	letters := deadLetterIDs(t, c.state)
	for line := range strings.Lines(d.stderr.String()) {
		var record struct {
			Msg, Input string
			Points     int
			Time       time.Time `json:"batch_time"`
		}
		if json.Unmarshal([]byte(line), &record) != nil || record.Msg != "queued" {
			continue
		}
		if record.Input != "serial" {
			good++ // batches, each with one sockwatch_build_info
			continue
		}
		for i := range record.Points {
			if queued++; !letters[fmt.Sprintf("%d-%02d", record.Time.UnixNano(), i)] {
				missing++
			}
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d bad points are no dead letters", missing, queued)
	}
	if len(letters) != queued {
		t.Errorf("%d dead letters, %d bad points queued", len(letters), queued)
	}
	text, err := os.ReadFile(filepath.Join(c.state, "influxdb.rejected.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), `field type conflict: input field \"value\" on measurement \"ids\" is type integer, already exists as type float`) {
		t.Errorf("the dead letters do not say why: %.300s", text)
	}
	stored := 0
	count := func() {
		fetch(t, http.MethodPost, server.URL+"/query?db=db&q="+url.QueryEscape("SELECT count(value) FROM sockwatch_build_info"), func(body io.Reader) error {
			var answer struct {
				Results []struct {
					Series []struct{ Values [][2]any }
				}
			}
			if err := json.NewDecoder(body).Decode(&answer); err != nil {
				return err
			}
			stored = int(answer.Results[0].Series[0].Values[0][1].(float64))
			return nil
		})
	}
	eventually(t, fmt.Sprintf("%d good batches stored", good), func() bool {
		count()
		return stored >= good
	})
	if stored != good {
		t.Errorf("%d good batches queued, %d stored", good, stored)
	}
	t.Logf("%d points rejected, %d batches stored", queued, stored)
}
