package prometheus

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/munnerz/goautoneg"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// textVersion1 is the text format in which names may have any characters. Classic names
// look the same as in version 0.0.4, which expfmt encodes.
const textVersion1 expfmt.Format = "text/plain; version=1.0.0; charset=utf-8"

// formats are the formats that a client can request. Equal ones are encoded once.
var formats = [...]expfmt.Format{expfmt.FmtText, textVersion1, expfmt.FmtOpenMetrics_1_0_0, expfmt.FmtOpenMetrics_0_0_1, expfmt.FmtProtoDelim}

// negotiateFormat returns the format to encode and its Content-Type: the one that the
// client prefers, or text if it has no preference.
func negotiateFormat(h http.Header) (encoder expfmt.Format, contentType string, err error) {
	accept := strings.Join(h.Values("Accept"), ",")
	clauses := goautoneg.ParseAccept(accept)
	acceptable := slices.DeleteFunc(slices.Clone(formats[:]), func(f expfmt.Format) bool { return isRefused(f, clauses) })
	if len(acceptable) == 0 {
		return "", "", errNotAcceptable
	}
	chosen := expfmt.NegotiateAccept(http.Header{"Accept": {accept}}, acceptable...).WithEscapingScheme(model.UnderscoreEscaping)
	switch chosen.FormatType() {
	case expfmt.TypeOpenMetrics:
		encoder = expfmt.FmtOpenMetrics_1_0_0
	case expfmt.TypeProtoDelim:
		encoder = expfmt.FmtProtoDelim
	default:
		encoder = expfmt.FmtText
	}
	return encoder, string(chosen), nil
}

// isRefused reports whether the most specific clause of an Accept header that matches a
// format has the weight 0.
func isRefused(f expfmt.Format, clauses []goautoneg.Accept) bool {
	target := goautoneg.ParseAccept(string(f))[0]
	best, refused := -1, false
	for _, c := range clauses {
		exactness := 0
		switch version := c.Params["version"]; {
		case c.Type == "*":
		case c.Type != target.Type:
			continue
		case c.SubType == "*":
			exactness = 1
		case c.SubType != target.SubType || version != "" && version != target.Params["version"]:
			continue
		case version == "":
			exactness = 2
		default:
			exactness = 3
		}
		if exactness > best {
			best, refused = exactness, c.Q <= 0
		}
	}
	return refused
}

// An encoding is an HTTP content encoding, "" for identity.
type encoding string

const (
	identity  encoding = ""
	gzipped   encoding = "gzip"
	zstandard encoding = "zstd"
)

// negotiateEncoding returns the encoding that the client prefers. If it has no
// preference among several, the one with the smallest result wins. If it accepts anything
// ("*"), that is gzip.
func negotiateEncoding(h http.Header) (encoding, error) {
	weights := map[string]float64{}
	for clause := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		name, weight := parseClause(clause)
		weights[strings.TrimPrefix(name, "x-")] = weight
	}
	weight := func(name string, unnamed float64) float64 {
		if w, ok := weights[name]; ok {
			return w
		}
		return unnamed
	}
	// RFC 9110, 12.5.3: identity is acceptable unless the client refuses it. Every other
	// encoding that the client names comes before it, unless it names identity too.
	const least = 1e-9
	best, most := identity, weight("identity", min(least, weight("*", least)))
	if w := weight("gzip", weight("*", 0)); w > 0 && w >= most {
		best, most = gzipped, w
	}
	if w := weight("zstd", 0); w > 0 && w >= most {
		best, most = zstandard, w
	}
	if most <= 0 {
		return "", errNotAcceptable
	}
	return best, nil
}

// parseClause returns the name and the weight of a clause such as "gzip;q=0.5". An
// invalid weight counts as 0.
func parseClause(clause string) (name string, weight float64) {
	name, params, _ := strings.Cut(strings.ToLower(clause), ";")
	weight = 1
	for p := range strings.SplitSeq(params, ";") {
		if v, ok := strings.CutPrefix(strings.TrimSpace(p), "q="); ok {
			w, err := strconv.ParseFloat(v, 64)
			if err != nil || !(w >= 0 && w <= 1) {
				w = 0
			}
			weight = w
		}
	}
	return strings.TrimSpace(name), weight
}
