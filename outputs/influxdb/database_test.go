package influxdb

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/outputs/internal/push/pushtest"
)

func TestCreateDatabaseQuotesTheName(t *testing.T) {
	for name, want := range map[string]string{
		"sockwatch": `CREATE DATABASE "sockwatch"`, `a"; DROP DATABASE "b`: `CREATE DATABASE "a\"; DROP DATABASE \"b"`, "a\\\nb": `CREATE DATABASE "a\\\nb"`,
	} {
		r := creation(name)
		form, err := url.ParseQuery(string(r.Body))
		if err != nil {
			t.Fatal(err)
		}
		if got := form.Get("q"); got != want || r.Path != "query" {
			t.Errorf("%s to %s, want %s", got, r.Path, want)
		}
	}
}

// A databaseServer is a fake InfluxDB 1.x without its database.
type databaseServer struct {
	*pushtest.Server
	login    string         // login that may create it; "": any
	refusal  string         // answer to CREATE DATABASE, with status 200; "": none
	statuses []int          // status of the first answers to CREATE DATABASE; 0: success
	ignore   bool           // CREATE DATABASE does nothing
	created  map[string]int // statements
}

func newDatabaseServer(t *testing.T) *databaseServer {
	s := &databaseServer{Server: pushtest.NewServer(t), created: map[string]int{}}
	s.Does(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/query":
			s.query(w, r)
		case len(s.created) == 0 || s.ignore:
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"error":"database not found: \"sockwatch\""}`)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
	return s
}

func (s *databaseServer) query(w http.ResponseWriter, r *http.Request) {
	status := 0
	if len(s.statuses) > 0 {
		status, s.statuses = s.statuses[0], s.statuses[1:]
	}
	switch {
	case status != 0:
		w.WriteHeader(status)
	case s.login != "" && r.Header.Get("Authorization") != s.login:
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `{"error":"error authorizing query: not authorized"}`)
	case s.refusal != "":
		fmt.Fprintf(w, `{"results":[{"statement_id":0,"error":%q}]}`, s.refusal)
	default:
		s.created["sockwatch"]++
		io.WriteString(w, `{"results":[{"statement_id":0}]}`)
	}
}

// requests returns the number of writes and statements since the last call.
func (s *databaseServer) requests() (n [2]int) {
	for _, r := range s.Took() {
		if r.URL == "/query" {
			n[1]++
		} else {
			n[0]++
		}
	}
	return n
}

// TestMissingDatabaseIsCreatedOnce checks what InfluxDB 1.x is asked if it answers
// that the database is missing.
func TestMissingDatabaseIsCreatedOnce(t *testing.T) {
	const notFound = `URL: 404 Not Found: database not found: "sockwatch": `
	const advice = `create database "sockwatch", or check urls`
	type outcome struct {
		err      string
		requests [2]int // writes, statements
	}
	for _, tt := range []struct {
		name   string
		server func(s *databaseServer)
		change func(o *Options)
		want   []outcome // pushes in a row
		log    []string
	}{
		{name: "created", want: []outcome{
			{err: "<nil>", requests: [2]int{2, 1}},
			{err: "<nil>", requests: [2]int{1, 0}},
		}, log: []string{`level=INFO msg="database created" database=sockwatch url=URL`}},
		{name: "created without effect", server: func(s *databaseServer) { s.ignore = true }, want: []outcome{
			{err: notFound + advice, requests: [2]int{2, 1}},
			{err: notFound + advice, requests: [2]int{1, 0}},
		}, log: []string{`level=INFO msg="database created" database=sockwatch url=URL`}},
		{name: "not wanted", change: func(o *Options) { o.SkipDatabaseCreation = true }, want: []outcome{
			{err: notFound + advice, requests: [2]int{1, 0}},
		}},
		{name: "by a user without the right", server: func(s *databaseServer) { s.login = "Basic cm9vdDpwdw==" }, want: []outcome{
			{err: notFound + "CREATE DATABASE: 403 Forbidden: error authorizing query: not authorized: " + advice, requests: [2]int{2, 1}},
			{err: notFound + "CREATE DATABASE: 403 Forbidden: error authorizing query: not authorized: " + advice, requests: [2]int{1, 0}},
		}},
		{name: "with credentials", server: func(s *databaseServer) { s.login = "Basic cm9vdDpwdw==" },
			change: func(o *Options) { o.Username, o.Password = "root", "pw" }, want: []outcome{
				{err: "<nil>", requests: [2]int{2, 1}},
			}, log: []string{`level=INFO msg="database created" database=sockwatch url=URL`}},
		{name: "401", server: func(s *databaseServer) { s.statuses = []int{401} }, want: []outcome{
			{err: notFound + "CREATE DATABASE: 401 Unauthorized: " + advice, requests: [2]int{2, 1}},
			{err: notFound + "CREATE DATABASE: 401 Unauthorized: " + advice, requests: [2]int{1, 0}},
		}},
		{name: "an error of the statement", server: func(s *databaseServer) { s.refusal = "invalid name" }, want: []outcome{
			{err: notFound + `CREATE DATABASE: 200 OK: {"results":[{"statement_id":0,"error":"invalid name"}]}: ` + advice, requests: [2]int{2, 1}},
		}},
		{name: "a server that is not ready is asked again", server: func(s *databaseServer) { s.statuses = []int{503} }, want: []outcome{
			{err: `URL: create database "sockwatch": 503 Service Unavailable`, requests: [2]int{1, 1}},
			{err: "<nil>", requests: [2]int{2, 1}},
		}, log: []string{`level=INFO msg="database created" database=sockwatch url=URL`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newDatabaseServer(t)
			if tt.server != nil {
				tt.server(server)
			}
			o := v1(server.URL)
			if tt.change != nil {
				tt.change(&o)
			}
			out, log := newOutput(t, o)
			var got []outcome
			for range tt.want {
				err := send(t, out, "m v=1i 1")
				got = append(got, outcome{withoutPort(fmt.Sprint(err), server.URL), server.requests()})
				if k := pushtest.Kind(err); k != "stored" && k != "kept" {
					t.Errorf("the points are %s", k)
				}
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(outcome{})); diff != "" {
				t.Errorf("pushes (-want +got)\n%s", diff)
			}
			var logged []string
			for _, line := range log.Lines() {
				logged = append(logged, withoutPort(line, server.URL))
			}
			if diff := cmp.Diff(tt.log, logged); diff != "" {
				t.Errorf("log (-want +got)\n%s", diff)
			}
		})
	}
}

// TestOtherAnswersCreateNoDatabase: something other than a database of
// InfluxDB 1.x is missing.
func TestOtherAnswersCreateNoDatabase(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options func(url string) Options
		body    string
	}{
		{name: "a retention policy", options: func(url string) Options { return v1(url) }, body: `{"error":"retention policy not found: rp"}`},
		{name: "a path", options: func(url string) Options { return v1(url) }, body: "404 page not found"},
		{name: "a name that says so", options: func(url string) Options { return v1(url) }, body: `{"error":"no route \"database not found\""}`},
		{name: "a bucket", options: v2Options, body: `{"code":"not found","message":"database not found"}`},
		{name: "a database of 3.x", options: v3Options, body: "database not found"},
	} {
		server := pushtest.NewServer(t)
		server.Answers(http.StatusNotFound, tt.body)
		out, _ := newOutput(t, tt.options(server.URL))
		if err := send(t, out, "m v=1i 1"); pushtest.Kind(err) != "kept" {
			t.Errorf("%s: %s: %v", tt.name, pushtest.Kind(err), err)
		}
		if n := len(server.Took()); n != 1 {
			t.Errorf("%s: %d requests, want 1", tt.name, n)
		}
	}
}
