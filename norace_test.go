//go:build !race

package sslstream_test

const raceDetector = false
