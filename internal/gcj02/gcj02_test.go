package gcj02

import (
	"math"
	"math/rand/v2"
	"testing"
)

// metres between two points that are near each other.
func metres(a, b Point) float64 {
	const degree = 111_320
	return degree * math.Hypot(a.Latitude-b.Latitude, (a.Longitude-b.Longitude)*math.Cos(a.Latitude/180*math.Pi))
}

// The reference points of eviltransform's own tests.
func TestReferencePoints(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ wgs84, want Point }{
		"Shanghai":            {Point{31.1774276, 121.5272106}, Point{31.17530398364597, 121.531541859215}},
		"Shenzhen":            {Point{22.543847, 113.912316}, Point{22.540796131694766, 113.9171764808363}},
		"Beijing":             {Point{39.911954, 116.377817}, Point{39.91334545536069, 116.38404722455657}},
		"Denver, not China":   {Point{39.7392, -104.9903}, Point{39.7392, -104.9903}},
		"Brisbane, not China": {Point{-27.4698, 153.0251}, Point{-27.4698, 153.0251}},
	} {
		if got := FromWGS84(tc.wgs84); math.Abs(got.Latitude-tc.want.Latitude) > 1e-9 || math.Abs(got.Longitude-tc.want.Longitude) > 1e-9 {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
	// The points of coordtransform's README.
	for name, tc := range map[string]struct{ got, want Point }{
		"WGS-84": {FromWGS84(Point{39.915, 116.404}), Point{39.91640428150164, 116.41024449916938}},
		"BD-09":  {FromBD09(Point{39.915, 116.404}), Point{39.90865673957631, 116.39762729119315}},
	} {
		if math.Abs(tc.got.Latitude-tc.want.Latitude) > 1e-9 || math.Abs(tc.got.Longitude-tc.want.Longitude) > 1e-9 {
			t.Errorf("%s: %v, want %v", name, tc.got, tc.want)
		}
	}
}

// toBD09 is the other direction, as coordtransform publishes it.
func toBD09(p Point) Point {
	r := math.Hypot(p.Longitude, p.Latitude) + 0.00002*math.Sin(p.Latitude*baidu)
	theta := math.Atan2(p.Latitude, p.Longitude) + 0.000003*math.Cos(p.Longitude*baidu)
	return Point{Latitude: r*math.Sin(theta) + 0.006, Longitude: r*math.Cos(theta) + 0.0065}
}

// Anywhere in China the shift is real and less than a kilometre, near points
// stay near each other, and Baidu's way there and back ends where it began.
func TestEverywhereInChina(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2)) // #nosec G404 -- the same points each time
	for range 20_000 {
		p := Point{18 + 35*r.Float64(), 74 + 60*r.Float64()}
		g := FromWGS84(p)
		if d := metres(p, g); d < 1 || d > 1000 || math.IsNaN(d) {
			t.Fatalf("%v is moved by %.1f m", p, d)
		}
		near := Point{p.Latitude + 1e-5, p.Longitude - 1e-5}
		if d := metres(g, FromWGS84(near)); d > 3 {
			t.Fatalf("%v and a point a metre beside it end %.1f m apart", p, d)
		}
		if d := metres(g, FromBD09(toBD09(g))); d > 1 {
			t.Fatalf("%v, to Baidu's and back: %.2f m off", g, d)
		}
	}
}
