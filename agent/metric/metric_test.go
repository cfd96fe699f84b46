package metric

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCheckNamesWhatIsBroken(t *testing.T) {
	now := time.Now()
	field := []Field{{"v", Int(1)}}
	tests := []struct {
		name  string
		batch Batch
		want  string
	}{
		{"good", Batch{Time: now, Points: []Point{{Name: "x", Tags: NewTags("a", "1"), Fields: field}, {Name: "x", Fields: field}}}, ""},
		{"no time", Batch{}, "batch has no time"},
		{"no name", Batch{Time: now, Points: []Point{{Fields: field}}}, `invalid point name ""`},
		{"no fields", Batch{Time: now, Points: []Point{{Name: "x"}}}, "x{} has no fields"},
		{"two fields", Batch{Time: now, Points: []Point{{Name: "x", Fields: []Field{{"v", Int(1)}, {"w", Int(1)}, {"v", Int(2)}}}}}, "x: duplicate field v"},
		{"unsorted", Batch{Time: now, Points: []Point{{Name: "x", Tags: []Tag{{"b", "1"}, {"a", "1"}}, Fields: field}}}, "x: tags b and a are out of order"},
		{"twice", Batch{Time: now, Points: []Point{{Name: "x", Tags: []Tag{{"a", "1"}, {"a", "2"}}, Fields: field}}}, "x: tags a and a are out of order"},
		{"empty tag", Batch{Time: now, Points: []Point{{Name: "x", Tags: []Tag{{"a", ""}}, Fields: field}}}, "x: tag a is empty"},
		{"not UTF-8", Batch{Time: now, Points: []Point{{Name: "x", Tags: []Tag{{"a", "\xff"}}, Fields: field}}}, `x: tag a is not UTF-8: "\xff"`},
		{"field not UTF-8", Batch{Time: now, Points: []Point{{Name: "x", Fields: []Field{{"v", String("\xff")}}}}}, `x: field v is not UTF-8: "\xff"`},
		{"duplicate", Batch{Time: now, Points: []Point{
			{Name: "x", Tags: NewTags("a", "1", "b", "2"), Fields: field},
			{Name: "x", Tags: NewTags("b", "2", "a", "1"), Fields: field},
		}}, `two points with the same name and tags: x{a="1",b="2"}`},
		{"event", Batch{Time: now, Events: []Point{{Name: "x", Fields: field}}}, "event x{} has no time"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := tt.batch.Check(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("Check() = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSeriesSetDistinguishesSeries(t *testing.T) {
	points := []Point{
		{Name: "x"}, {Name: "y"},
		{Name: "x", Tags: NewTags("a", "b")}, {Name: "x", Tags: NewTags("a", "c")}, {Name: "xa", Tags: NewTags("b", "c")},
		{Name: "x", Tags: NewTags("a", "bc")}, {Name: "x", Tags: NewTags("ab", "c")}, {Name: "x", Tags: NewTags("a", "b", "c", "d")},
	}
	var s SeriesSet
	for i := range points {
		if !s.Add(&points[i]) {
			t.Errorf("%s is taken for another", points[i].Series())
		}
		if s.Add(&Point{Name: points[i].Name, Tags: points[i].Tags}) {
			t.Errorf("%s is added twice", points[i].Series())
		}
	}
}

func TestValues(t *testing.T) {
	type view struct {
		Kind   Kind
		F      float64
		I      int64
		U      uint64
		B      bool
		S      string
		N      float64
		HasN   bool
		Format string
	}
	tests := []struct {
		v    Value
		want view
	}{
		{Value{}, view{Kind: KindFloat, HasN: true, Format: "0"}},
		{Float(-1.5), view{Kind: KindFloat, F: -1.5, N: -1.5, HasN: true, Format: "-1.5"}},
		{Int(math.MinInt64), view{Kind: KindInt, I: math.MinInt64, N: math.MinInt64, HasN: true, Format: "-9223372036854775808"}},
		{Uint(math.MaxUint64), view{Kind: KindUint, U: math.MaxUint64, N: math.MaxUint64, HasN: true, Format: "18446744073709551615"}},
		{Bool(true), view{Kind: KindBool, B: true, N: 1, HasN: true, Format: "true"}},
		{Bool(false), view{Kind: KindBool, HasN: true, Format: "false"}},
		{String("s"), view{Kind: KindString, S: "s", Format: "s"}},
	}
	for _, tt := range tests {
		n, ok := tt.v.Number()
		got := view{tt.v.Kind(), tt.v.AsFloat(), tt.v.AsInt(), tt.v.AsUint(), tt.v.AsBool(), tt.v.AsString(), n, ok, tt.v.String()}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tt.v, diff)
		}
	}
}
