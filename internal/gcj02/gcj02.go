// Package gcj02 turns coordinates of satellites (WGS-84) and of Baidu's map
// (BD-09) into those of maps in China (GCJ-02), the only ones that WeChat takes
// for a place (document 000 §4.7).
//
// The formula of GCJ-02 was never published by its authors; this is the one
// that public implementations share, such as eviltransform
// (https://github.com/googollee/eviltransform) and coordtransform
// (https://github.com/wandergis/coordtransform), whose reference points the
// tests hold. It is good to some metres, which is what a pin on a map needs.
// Nothing here may be used on coordinates that are in GCJ-02 already: the
// result would be half a kilometre off.
package gcj02

import "math"

// A Point is a place on the earth, in degrees.
type Point struct{ Latitude, Longitude float64 }

const (
	axis         = 6378245.0              // Krasovsky 1940, metres
	eccentricity = 0.00669342162296594323 // squared
	baidu        = math.Pi * 3000 / 180
)

// FromWGS84 converts what a satellite receiver shows. Outside the rectangle
// around China that the public implementations agree on, both are the same.
func FromWGS84(p Point) Point {
	if p.Longitude < 72.004 || p.Longitude > 137.8347 || p.Latitude < 0.8293 || p.Latitude > 55.8271 {
		return p
	}
	x, y := p.Longitude-105, p.Latitude-35
	both := (20*math.Sin(6*x*math.Pi) + 20*math.Sin(2*x*math.Pi)) * 2 / 3
	lat := -100 + 2*x + 3*y + 0.2*y*y + 0.1*x*y + 0.2*math.Sqrt(math.Abs(x)) + both +
		(20*math.Sin(y*math.Pi)+40*math.Sin(y/3*math.Pi))*2/3 +
		(160*math.Sin(y/12*math.Pi)+320*math.Sin(y/30*math.Pi))*2/3
	lng := 300 + x + 2*y + 0.1*x*x + 0.1*x*y + 0.1*math.Sqrt(math.Abs(x)) + both +
		(20*math.Sin(x*math.Pi)+40*math.Sin(x/3*math.Pi))*2/3 +
		(150*math.Sin(x/12*math.Pi)+300*math.Sin(x/30*math.Pi))*2/3

	phi := p.Latitude / 180 * math.Pi
	m := 1 - eccentricity*math.Sin(phi)*math.Sin(phi)
	return Point{
		Latitude:  p.Latitude + lat*180/(axis*(1-eccentricity)/(m*math.Sqrt(m))*math.Pi),
		Longitude: p.Longitude + lng*180/(axis/math.Sqrt(m)*math.Cos(phi)*math.Pi),
	}
}

// FromBD09 converts what Baidu's map shows.
func FromBD09(p Point) Point {
	x, y := p.Longitude-0.0065, p.Latitude-0.006
	r := math.Hypot(x, y) - 0.00002*math.Sin(y*baidu)
	theta := math.Atan2(y, x) - 0.000003*math.Cos(x*baidu)
	return Point{Latitude: r * math.Sin(theta), Longitude: r * math.Cos(theta)}
}
