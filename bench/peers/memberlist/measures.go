package main

import (
	"math"
	"slices"
)

// Percentiles of durations, in milliseconds.
type Percentiles struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// Measures of one run.
type Measures struct {
	System    string      `json:"system"`
	Nodes     int         `json:"nodes"`
	Records   int         `json:"records"`
	Expected  int64       `json:"expected"` // deliveries: records × (nodes − 1)
	Missing   int64       `json:"missing"`  // deliveries that never came
	Partial   int         `json:"partial"`  // records that did not reach all nodes
	OneMs     Percentiles `json:"one_ms"`   // due → delivered at one other node
	AllMs     Percentiles `json:"all_ms"`   // due → delivered at the last that got it
	LateMs    Percentiles `json:"late_ms"`  // due → published
	Copies    float64     `json:"copies_per_delivery"`
	Datagrams float64     `json:"datagrams_per_record_per_node"` // idle traffic taken off
	Bytes     float64     `json:"bytes_per_record_per_node"`

	IdleDatagrams float64 `json:"idle_datagrams_per_node_per_s"`
	IdleBytes     float64 `json:"idle_bytes_per_node_per_s"`
	IdleCPU       float64 `json:"idle_cpu_percent"`   // of one core, all nodes together
	BusyCPU       float64 `json:"busy_cpu_percent"`   // while records are published
	DriverCPU     float64 `json:"driver_cpu_percent"` // 0: it is in the same process
}

// percentiles sorts its argument; nearest rank.
func percentiles(ns []int64) Percentiles {
	if len(ns) == 0 {
		return Percentiles{}
	}
	slices.Sort(ns)
	at := func(q float64) float64 {
		rank := int(math.Ceil(q * float64(len(ns))))
		return float64(ns[max(rank, 1)-1]) / 1e6
	}
	return Percentiles{P50: at(0.5), P90: at(0.9), P99: at(0.99), P999: at(0.999), Max: at(1)}
}
