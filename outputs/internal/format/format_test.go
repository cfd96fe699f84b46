package format

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

var at = time.Date(2026, 11, 22, 10, 0, 0, 123456789, time.UTC)

func TestUnusualValuesInJSON(t *testing.T) {
	base := metric.Point{Name: "m", Fields: []metric.Field{{Key: "v", Value: metric.Int(1)}}, Time: at}
	with := func(change func(p *metric.Point)) metric.Point {
		p := base
		change(&p)
		return p
	}
	fields := func(f ...metric.Field) metric.Point {
		return with(func(p *metric.Point) { p.Fields = f })
	}
	for _, tt := range []struct {
		name, timestamp string
		point           metric.Point
		want            string
	}{
		{name: "keys in Telegraf's order, tags and fields sorted", timestamp: "rfc3339",
			point: metric.Point{Name: "tcp_listen", Time: at, Tags: metric.NewTags("port", "80", "address", "::"),
				Fields: []metric.Field{{Key: "sockets", Value: metric.Int(1)}, {Key: "backlog", Value: metric.Uint(0)}}},
			want: `{"name":"tcp_listen","tags":{"address":"::","port":"80"},"fields":{"backlog":0,"sockets":1},"timestamp":"2026-11-22T10:00:00.123456789Z"}`},
		{name: "another zone", timestamp: "rfc3339", point: with(func(p *metric.Point) { p.Time = at.In(time.FixedZone("", 7200)) }),
			want: `{"name":"m","tags":{},"fields":{"v":1},"timestamp":"2026-11-22T10:00:00.123456789Z"}`},
		{name: "a start is not shown", timestamp: "unix", point: with(func(p *metric.Point) { p.Start = at.Add(-time.Hour) }),
			want: `{"name":"m","tags":{},"fields":{"v":1},"timestamp":1795341600}`},
		{name: "unix", timestamp: "unix", point: base, want: `{"name":"m","tags":{},"fields":{"v":1},"timestamp":1795341600}`},
		{name: "unix_ms", timestamp: "unix_ms", point: base, want: `{"name":"m","tags":{},"fields":{"v":1},"timestamp":1795341600123}`},
		{name: "unix_us", timestamp: "unix_us", point: base, want: `{"name":"m","tags":{},"fields":{"v":1},"timestamp":1795341600123456}`},
		{name: "unix_ns", timestamp: "unix_ns", point: base, want: `{"name":"m","tags":{},"fields":{"v":1},"timestamp":1795341600123456789}`},
		{name: "every kind", timestamp: "unix", point: fields(
			metric.Field{Key: "b", Value: metric.Bool(true)}, metric.Field{Key: "f", Value: metric.Float(0.5)},
			metric.Field{Key: "i", Value: metric.Int(math.MinInt64)}, metric.Field{Key: "s", Value: metric.String(`a"b\`)},
			metric.Field{Key: "u", Value: metric.Uint(math.MaxUint64)}),
			want: `{"name":"m","tags":{},"fields":{"b":true,"f":0.5,"i":-9223372036854775808,"s":"a\"b\\","u":18446744073709551615},"timestamp":1795341600}`},
		{name: "O24: NaN and infinities are left out", timestamp: "unix", point: fields(
			metric.Field{Key: "a", Value: metric.Float(math.NaN())}, metric.Field{Key: "b", Value: metric.Float(math.Inf(-1))},
			metric.Field{Key: "c", Value: metric.Int(2)}),
			want: `{"name":"m","tags":{},"fields":{"c":2},"timestamp":1795341600}`},
		{name: "H1: a hostile name is one line", timestamp: "unix", point: with(func(p *metric.Point) {
			p.Tags = []metric.Tag{{Key: "process", Value: "a\nb c=1 2"}}
		}), want: `{"name":"m","tags":{"process":"a\nb c=1 2"},"fields":{"v":1},"timestamp":1795341600}`},
		{name: "HTML is not escaped", timestamp: "unix", point: with(func(p *metric.Point) {
			p.Tags = []metric.Tag{{Key: "t", Value: "<a&b>"}}
		}), want: `{"name":"m","tags":{"t":"<a&b>"},"fields":{"v":1},"timestamp":1795341600}`},
		{name: "O24: an empty tag is none", timestamp: "unix", point: with(func(p *metric.Point) { p.Tags = []metric.Tag{{Key: "t"}} }),
			want: `{"name":"m","tags":{},"fields":{"v":1},"timestamp":1795341600}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := NewJSON(tt.timestamp).Encode([]byte("before "), &tt.point)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff("before "+tt.want, string(got)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestUnusualValuesInLineProtocol covers what this package decides before line-protocol's
// encoder.
func TestUnusualValuesInLineProtocol(t *testing.T) {
	tag := func(value string) metric.Point {
		return metric.Point{Name: "m", Time: at, Tags: []metric.Tag{{Key: "t", Value: value}},
			Fields: []metric.Field{{Key: "v", Value: metric.Int(1)}}}
	}
	field := func(v metric.Value) metric.Point {
		return metric.Point{Name: "m", Time: at, Fields: []metric.Field{{Key: "v", Value: v}, {Key: "w", Value: metric.Int(1)}}}
	}
	for _, tt := range []struct {
		name  string
		point metric.Point
		want  string
	}{
		{"a listener", metric.Point{Name: "tcp_listen", Time: at, Tags: metric.NewTags("port", "80", "address", "::"),
			Fields: []metric.Field{{Key: "sockets", Value: metric.Int(1)}, {Key: "exe", Value: metric.String("/bin/nginx")}}},
			`tcp_listen,address=::,port=80 sockets=1i,exe="/bin/nginx"`},
		{"a start is not shown", metric.Point{Name: "m", Time: at, Start: at.Add(-time.Hour), Fields: []metric.Field{{Key: "n_total", Value: metric.Int(1)}}}, `m n_total=1i`},
		{"the format's own characters", tag("a b,c=d"), `m,t=a\ b\,c\=d v=1i`},
		{"what an input escaped stays", tag(`a\x0ab\x5c.mount`), `m,t=a\x0ab\x5c.mount v=1i`},
		{"O24: a backslash at the end", tag(`a\`), `m,t=a\X5C v=1i`},
		{"a backslash before a comma", tag(`a\,b`), `m,t=a\X5C\,b v=1i`},
		{"a backslash before a space", tag(`a\ b`), `m,t=a\X5C\ b v=1i`},
		{"two backslashes", tag(`a\\b`), `m,t=a\X5C\b v=1i`},
		{"what looks escaped by this package", tag(`a\X0A`), `m,t=a\X5CX0A v=1i`},
		{"H1: a newline", tag("a\nb c=1 2"), `m,t=a\X0Ab\ c\=1\ 2 v=1i`},
		{"other control characters", tag("\x00\t\r\x7f"), `m,t=\X00\X09\X0D\X7F v=1i`},
		{"O24: an empty tag is none", tag(""), `m v=1i`},
		{"a name that would be a comment", metric.Point{Name: "#m", Time: at, Fields: tag("").Fields}, `\X23m v=1i`},
		{"a name and keys", metric.Point{Name: "a\nb", Time: at, Tags: []metric.Tag{{Key: "k\n", Value: "v"}},
			Fields: []metric.Field{{Key: "f\\", Value: metric.Int(1)}}}, `a\X0Ab,k\X0A=v f\X5C=1i`},
		{"field keys that differ by a backslash before a quote", metric.Point{Name: "m", Time: at, Tags: []metric.Tag{{Key: `t\"`, Value: `\"`}},
			Fields: []metric.Field{{Key: `a"`, Value: metric.Int(1)}, {Key: `a\"`, Value: metric.Int(2)}, {Key: `a\X5C"`, Value: metric.Int(3)}}},
			`m,t\"=\" a"=1i,a\X5C"=2i,a\X5CX5C"=3i`},
		{"O24: above 2^63-1", field(metric.Uint(math.MaxUint64)), `m v=9223372036854775807i,w=1i`},
		{"O24: NaN", field(metric.Float(math.NaN())), `m w=1i`},
		{"O24: infinity", field(metric.Float(math.Inf(1))), `m w=1i`},
		{"a bool", field(metric.Bool(true)), `m v=true,w=1i`},
		{"a float", field(metric.Float(2)), `m v=2,w=1i`},
		{"a string", field(metric.String(`a"b\c, d=e\`)), `m v="a\"b\\c, d=e\\",w=1i`},
		{"a string of several lines", field(metric.String("a\nb\\X")), `m v="a\\X0Ab\\X5CX",w=1i`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var l LineProtocol
			got, err := l.Encode([]byte("before "), &tt.point)
			if err != nil {
				t.Fatal(err)
			}
			want := "before " + tt.want + " 1795341600123456789"
			if diff := cmp.Diff(want, string(got)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	one := []metric.Field{{Key: "v", Value: metric.Int(1)}}
	for _, tt := range []struct {
		name   string
		point  metric.Point
		json   string // the errors' texts; "": none
		influx string
	}{
		{name: "no time", point: metric.Point{Name: "m", Fields: one}, json: "no time", influx: "no time"},
		{name: "a time outside int64", point: metric.Point{Name: "m", Fields: one, Time: at.AddDate(500, 0, 0)},
			json: "time out of range", influx: "timestamp 2526-11-22T10:00:00Z: line-protocol value out of range"},
		{name: "only NaN", point: metric.Point{Name: "m", Time: at, Fields: []metric.Field{{Key: "v", Value: metric.Float(math.NaN())}}},
			json: "", influx: "no field that line protocol can express"},
		{name: "a tag that is not UTF-8", point: metric.Point{Name: "m", Time: at, Fields: one, Tags: []metric.Tag{{Key: "t", Value: "\xff"}}},
			json: "not UTF-8", influx: "tag t: not UTF-8"},
		{name: "a string that is not UTF-8", point: metric.Point{Name: "m", Time: at, Fields: []metric.Field{{Key: "v", Value: metric.String("\xff")}}},
			json: "not UTF-8", influx: "field v: not UTF-8"},
		{name: "a key twice", point: metric.Point{Name: "m", Time: at, Fields: one, Tags: []metric.Tag{{Key: "t", Value: "a"}, {Key: "t", Value: "b"}}},
			json: "tags out of order", influx: "tags out of order"},
		{name: "no name", point: metric.Point{Time: at, Fields: one}, json: "", influx: "name: empty"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, e := range []struct {
				enc  Encoder
				want string
			}{{NewJSON("unix_ns"), tt.json}, {New("influx", "rfc3339"), tt.influx}} {
				got, err := e.enc.Encode([]byte("before"), &tt.point)
				if text := errorText(err); text != e.want {
					t.Errorf("%T: error %q, want %q", e.enc, text, e.want)
				}
				if err != nil && string(got) != "before" {
					t.Errorf("%T: %q appended beside the error", e.enc, got)
				}
				good := metric.Point{Name: "m", Time: at, Fields: one}
				if got, err := e.enc.Encode(nil, &good); err != nil || len(got) == 0 {
					t.Errorf("%T: the next point: %q, %v", e.enc, got, err)
				}
			}
		})
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct{ data, timestamp, want string }{
		{"json", "unix_us", ""},
		{"influx", "rfc3339", ""},
		{"xml", "unix", `data_format: unknown value "xml" (known: json, influx)`},
		{"xml", "iso", `data_format: unknown value "xml" (known: json, influx)
timestamp_format: unknown value "iso" (known: rfc3339, unix, unix_ms, unix_us, unix_ns)`},
		{"influx", "unix", `timestamp_format: "unix" needs data_format "json": times in line protocol are always in nanoseconds`},
	} {
		if got := errorText(Validate(tt.data, tt.timestamp)); got != tt.want {
			t.Errorf("Validate(%q, %q): %q, want %q", tt.data, tt.timestamp, got, tt.want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestNamesStayApart checks that different names stay different, whatever an input or a
// host has escaped in them before.
func TestNamesStayApart(t *testing.T) {
	names := []string{
		"a\nb", `a\nb`, `a\x0ab`, `a\X0Ab`, `a\X5CX0Ab`, `a\x5cx0ab`, `a\X5CnB`, "a b", `a\ b`, `a\X5C b`, `a\x20b`,
		"a", `a\`, `a\\`, `a\X5C`, `a\x5c`, `a\X5C\`, "a,b", `a\,b`, "a=b", `a\=b`, `"a"`, "a\x00", "a\x7f", "\u00e9", "e\u0301", "#a", `\X23a`,
	}
	for _, e := range []Encoder{NewJSON("unix"), &LineProtocol{}} {
		for _, place := range []func(p *metric.Point, s string){
			func(p *metric.Point, s string) { p.Name = s },
			func(p *metric.Point, s string) { p.Tags = []metric.Tag{{Key: "t", Value: s}} },
			func(p *metric.Point, s string) { p.Tags = []metric.Tag{{Key: s, Value: "v"}} },
			func(p *metric.Point, s string) { p.Fields = []metric.Field{{Key: s, Value: metric.Int(1)}} },
			func(p *metric.Point, s string) { p.Fields = []metric.Field{{Key: "f", Value: metric.String(s)}} },
		} {
			seen := map[string]string{}
			for _, name := range names {
				p := metric.Point{Name: "m", Time: at, Fields: []metric.Field{{Key: "f", Value: metric.Int(1)}}}
				place(&p, name)
				line, err := e.Encode(nil, &p)
				if err != nil {
					t.Fatal(err)
				}
				if other, ok := seen[string(line)]; ok {
					t.Errorf("%T: %q and %q are one: %s", e, other, name, line)
				}
				seen[string(line)] = name
			}
		}
	}
}

// TestJSONIsOneLine covers every character that could end a line.
func TestJSONIsOneLine(t *testing.T) {
	for _, c := range []string{"\n", "\r", "\v", "\f", "\x00", "\u0085", "\u2028", "\u2029"} {
		p := metric.Point{Name: c, Time: at, Tags: []metric.Tag{{Key: c, Value: c}}, Fields: []metric.Field{{Key: c, Value: metric.String(c)}}}
		line, err := NewJSON("unix").Encode(nil, &p)
		if err != nil || strings.ContainsAny(string(line), "\r\n\v\f\x00\u2028\u2029") || !json.Valid(line) {
			t.Errorf("%q: %q, %v", c, line, err)
		}
	}
}

func ExampleJSON() {
	p := metric.Point{Name: "tcp_listen", Time: at, Tags: metric.NewTags("port", "22", "process", "sshd"),
		Fields: []metric.Field{{Key: "pid", Value: metric.Int(812)}}}
	line, _ := NewJSON("rfc3339").Encode(nil, &p)
	fmt.Printf("%s\n", line)
	// Output: {"name":"tcp_listen","tags":{"port":"22","process":"sshd"},"fields":{"pid":812},"timestamp":"2026-11-22T10:00:00.123456789Z"}
}
