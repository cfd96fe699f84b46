package main

import (
	"slices"
	"testing"
	"time"

	"sockwatch/agent/metric"
)

func TestChangesSinceATime(t *testing.T) {
	at := func(second, sequence int64) metric.Point {
		return metric.Point{Name: "tcp_listen_event", Time: time.Unix(second, 0), Fields: []metric.Field{{Key: "sequence", Value: metric.Int(sequence)}}}
	}
	recorded := []metric.Point{at(100, 5), at(200, 6), at(140, 7), at(210, 8)} // the third one closed at 140
	tests := []struct {
		name     string
		recorded []metric.Point
		since    int64
		complete int64
		want     []int64
	}{
		{name: "some", recorded: recorded, since: 150, complete: 150, want: []int64{6, 8}},
		{name: "a change that was reported later", recorded: recorded, since: 140, complete: 140, want: []int64{6, 7, 8}},
		{name: "none", recorded: recorded, since: 300, complete: 300, want: nil},
		{name: "more than are kept", recorded: recorded, since: 50, complete: 100, want: []int64{5, 6, 7, 8}},
		{name: "all there ever were", recorded: []metric.Point{at(100, 1)}, since: 50, complete: 50, want: []int64{1}},
		{name: "an empty history", recorded: nil, since: 50, complete: 50, want: nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			changes, complete := changesSince(tt.recorded, time.Unix(tt.since, 0))
			var got []int64
			for i := range changes {
				got = append(got, sequence(&changes[i]))
			}
			if !slices.Equal(got, tt.want) || complete.Unix() != tt.complete {
				t.Errorf("changes %v, complete since %d; want %v, %d", got, complete.Unix(), tt.want, tt.complete)
			}
		})
	}
}
