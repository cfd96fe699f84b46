package filter_test

import (
	"fmt"

	"sockwatch/agent/filter"
	"sockwatch/agent/metric"
)

// A filter keeps the public listeners, without their exact owner.
func ExampleFilter() {
	f, err := filter.New(filter.Options{
		NamePass:   []string{"tcp_*"},
		TagPass:    map[string][]string{"exposure": {"public"}},
		TagExclude: []string{"process", "unit"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	one := []metric.Field{{Key: "sockets", Value: metric.Int(1)}}
	points := f.Points([]metric.Point{
		{Name: "tcp_listen", Tags: metric.NewTags("exposure", "public", "port", "443", "process", "nginx"), Fields: one},
		{Name: "tcp_listen", Tags: metric.NewTags("exposure", "loopback", "port", "5432", "process", "postgres"), Fields: one},
		{Name: "sockwatch_input", Tags: metric.NewTags("exposure", "public"), Fields: one},
	})
	for _, p := range points {
		fmt.Println(p.Series())
	}
	// Output:
	// tcp_listen{exposure="public",port="443"}
}
