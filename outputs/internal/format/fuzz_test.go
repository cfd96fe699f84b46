package format

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/influxdata/line-protocol/v2/lineprotocol"

	"sockwatch/agent/metric"
)

var hostile = []string{
	"nginx", "a\nb c=1 2", `a\`, `a\,b=c`, `\\`, `\X0A`, `\x0a`, `\X5C`, "\x00\x7f", "#x", "é\u2028", `"`, "a\\\n", " ", ",", "=",
}

func seeds(f *testing.F) {
	for i, s := range hostile {
		other := hostile[(i+3)%len(hostile)]
		f.Add(s, other, s, other, s, 0.1*float64(i), int64(-i), uint64(i)<<60, int64(i)*1e15)
	}
	f.Add("m", "k", "v", "f", "", math.Inf(1), int64(math.MinInt64), uint64(math.MaxUint64), int64(math.MaxInt64))
}

// fuzzed returns the point of a fuzz test's arguments, with the fields f (a
// string), float, int, uint and bool; false where it breaks a Point's promises.
func fuzzed(name, key, value, field, str string, fl float64, i int64, u uint64, ns int64) (metric.Point, bool) {
	p := metric.Point{Name: name, Time: time.Unix(0, ns).UTC(), Tags: []metric.Tag{{Key: key, Value: value}}, Fields: []metric.Field{
		{Key: "0" + field, Value: metric.String(str)}, {Key: "float", Value: metric.Float(fl)}, {Key: "int", Value: metric.Int(i)},
		{Key: "uint", Value: metric.Uint(u)}, {Key: "bool", Value: metric.Bool(i%2 == 0)}}}
	return p, p.Check() == nil && !p.Time.IsZero()
}

// FuzzLineProtocol reads each line back by line-protocol's own decoder.
func FuzzLineProtocol(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, name, key, value, field, str string, fl float64, i int64, u uint64, ns int64) {
		p, ok := fuzzed(name, key, value, field, str, fl, i, u, ns)
		if !ok {
			t.Skip()
		}
		var l LineProtocol
		line, err := l.Append(nil, &p)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range line {
			if b < ' ' || b == 0x7f {
				t.Fatalf("control character in %q", line)
			}
		}
		want := p
		want.Fields = nil
		for _, f := range p.Fields {
			switch {
			case f.Value.Kind() == metric.KindUint:
				f.Value = metric.Int(int64(min(u, math.MaxInt64)))
			case f.Value.Kind() == metric.KindFloat && (math.IsNaN(fl) || math.IsInf(fl, 0)):
				continue
			}
			want.Fields = append(want.Fields, f)
		}
		got := decodeLine(t, line)
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b metric.Value) bool { return a == b })); diff != "" {
			t.Errorf("%q (-want +got)\n%s", line, diff)
		}
	})
}

// decodeLine decodes one line, the only one, and undoes what carried does.
func decodeLine(t *testing.T, line []byte) metric.Point {
	t.Helper()
	check := func(err error) {
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
	}
	d := lineprotocol.NewDecoderWithBytes(append(line, '\n'))
	if !d.Next() {
		t.Fatalf("%q is no line", line)
	}
	name, err := d.Measurement()
	check(err)
	p := metric.Point{Name: unescape(string(name))}
	for {
		k, v, err := d.NextTag()
		check(err)
		if k == nil {
			break
		}
		p.Tags = append(p.Tags, metric.Tag{Key: unescape(string(k)), Value: unescape(string(v))})
	}
	for {
		k, v, err := d.NextField()
		check(err)
		if k == nil {
			break
		}
		var value metric.Value
		switch v.Kind() {
		case lineprotocol.Float:
			value = metric.Float(v.FloatV())
		case lineprotocol.Int:
			value = metric.Int(v.IntV())
		case lineprotocol.Bool:
			value = metric.Bool(v.BoolV())
		case lineprotocol.String:
			value = metric.String(unescape(v.StringV()))
		default:
			t.Fatalf("%q: field %s of kind %v", line, k, v.Kind())
		}
		p.Fields = append(p.Fields, metric.Field{Key: unescape(string(k)), Value: value})
	}
	at, err := d.Time(lineprotocol.Nanosecond, time.Time{})
	check(err)
	p.Time = at.UTC()
	if d.Next() {
		t.Fatalf("%q is more than one line", line)
	}
	return p
}

// unescape is the way back from \XHH.
func unescape(s string) string {
	var out []byte
	for i := 0; i < len(s); i++ {
		if i+3 < len(s) && s[i] == '\\' && s[i+1] == 'X' {
			if b, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				out = append(out, byte(b))
				i += 3
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// FuzzJSON reads each object back by encoding/json.
func FuzzJSON(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, name, key, value, field, str string, fl float64, i int64, u uint64, ns int64) {
		p, ok := fuzzed(name, key, value, field, str, fl, i, u, ns)
		if !ok {
			t.Skip()
		}
		line, err := NewJSON("rfc3339").Append(nil, &p)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsAny(line, "\r\n") || !utf8.Valid(line) {
			t.Fatalf("%q is not one line of UTF-8", line)
		}
		var got struct {
			Name      string
			Tags      map[string]string
			Fields    map[string]any
			Timestamp time.Time
		}
		d := json.NewDecoder(bytes.NewReader(line))
		d.UseNumber()
		d.DisallowUnknownFields()
		if err := d.Decode(&got); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if d.More() {
			t.Fatalf("%q is more than one object", line)
		}
		want := map[string]any{
			"0" + field: str, "bool": i%2 == 0,
			"int": json.Number(strconv.FormatInt(i, 10)), "uint": json.Number(strconv.FormatUint(u, 10)),
		}
		if n, ok := got.Fields["float"].(json.Number); ok {
			if back, err := n.Float64(); err != nil || back != fl {
				t.Errorf("float %v came back as %v, %v", fl, back, err)
			}
			delete(got.Fields, "float")
		} else if !math.IsNaN(fl) && !math.IsInf(fl, 0) {
			t.Errorf("float %v is missing in %q", fl, line)
		}
		if diff := cmp.Diff(want, got.Fields); diff != "" {
			t.Errorf("fields (-want +got)\n%s", diff)
		}
		if diff := cmp.Diff(map[string]string{key: value}, got.Tags); diff != "" {
			t.Errorf("tags (-want +got)\n%s", diff)
		}
		if got.Name != name || !got.Timestamp.Equal(p.Time) {
			t.Errorf("%q: name %q, time %v; want %q, %v", line, got.Name, got.Timestamp, name, p.Time)
		}
	})
}
