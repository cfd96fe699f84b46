package influxdb

import (
	"regexp"
	"strconv"
	"strings"
)

// rejectedRecords returns the records that an answer names, by index, with the server's
// reason for each. all reports that the answer names no other records.
func (a *answer) rejectedRecords(records [][]byte) (reasons map[int]string, all bool) {
	switch {
	case len(a.lines) > 0:
		return a.listedRecords(len(records))
	case a.says("failed to parse line protocol"):
		return a.numberedRecords(len(records))
	default:
		return a.quotedRecords(records)
	}
}

// listedRecords returns the records in the list of line numbers of InfluxDB 3.x. A record
// is exactly one line.
func (a *answer) listedRecords(records int) (reasons map[int]string, all bool) {
	reasons, all = make(map[int]string), !a.Cut
	for _, l := range a.lines {
		if l.Number < 1 || l.Number > records {
			all = false
			continue
		}
		reasons[l.Number-1] = l.Reason
	}
	return reasons, all
}

// numberedLine matches how hosted InfluxDB 3.x and QuestDB name a line in a text.
var numberedLine = regexp.MustCompile(`(?m)^\s*error (?:parsing|in) line ([0-9]{1,9})(?: \(1-based\))?: (.*)$`)

// numberedRecords returns the records that the text names by line number.
func (a *answer) numberedRecords(records int) (reasons map[int]string, all bool) {
	reasons = make(map[int]string)
	for _, m := range numberedLine.FindAllStringSubmatch(a.text, -1) {
		if n, err := strconv.Atoi(m[1]); err == nil && n >= 1 && n <= records {
			reasons[n-1] = m[2]
		}
	}
	return reasons, false // the list may be incomplete
}

// quotedRecords returns the records that InfluxDB 1.x and 2.x quote, each on one line of
// the text: "unable to parse 'RECORD': REASON". A record contains no line end.
func (a *answer) quotedRecords(records [][]byte) (reasons map[int]string, all bool) {
	const before, behind = "unable to parse '", "': "
	text, _ := strings.CutPrefix(a.text, "partial write: ")
	if !strings.HasPrefix(text, before) {
		return nil, false
	}
	text = strings.TrimSpace(droppedCount.ReplaceAllString(text, ""))
	indices := make(map[string][]int, len(records))
	for i, r := range records {
		indices[string(r)] = append(indices[string(r)], i)
	}
	reasons, all = make(map[int]string), !a.Cut
	for line := range strings.SplitSeq(text, "\n") {
		quoted, ok := strings.CutPrefix(line, before)
		found := false
		for end := 0; ok && !found; end++ {
			i := strings.Index(quoted[end:], behind)
			if i < 0 {
				break
			}
			end += i
			for _, index := range indices[quoted[:end]] {
				reasons[index], found = line, true
			}
		}
		all = all && found
	}
	return reasons, all
}

// droppedCount matches the end of the message of InfluxDB 1.x and 2.x for a partial write.
var droppedCount = regexp.MustCompile(` ?dropped=([0-9]{1,18})$`)

// dropped returns the number of points that a partial write dropped, or 0 if the answer
// does not say.
func (a *answer) dropped() int {
	m := droppedCount.FindStringSubmatch(a.text)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return 0
	}
	return n
}
