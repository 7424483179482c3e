//! How far to go along a direction: the line search of Moré & Thuente (1994), with the constants that L-BFGS-B gives it.

/// Share of the decrease that the slope promises which a step must bring (Armijo).
const DECREASE: f64 = 1e-3;
/// Share of the first slope that may be left where the search ends.
const FLATTER: f64 = 0.9;
/// Relative width of an interval that is not cut further.
const NARROW: f64 = 0.1;
/// Longest step.
const LONGEST: f64 = 1e10;

/// Value and slope of the function along the direction, at a step.
#[derive(Clone, Copy, Debug)]
struct Point {
    at: f64,
    value: f64,
    slope: f64,
}

impl Point {
    /// The same point of the function less a line through its start.
    fn less(self, slope: f64) -> Point {
        Point { at: self.at, value: self.value - self.at * slope, slope: self.slope - slope }
    }
}

/// A search on its way: [`Search::tell`] takes value and slope at a step and says where to look next.
#[derive(Debug)]
pub struct Search {
    start: Point,
    /// The lowest point so far, and the other end of the interval that holds a minimum once `bracketed`.
    best: Point,
    other: Point,
    bracketed: bool,
    /// Whether a point has been seen that is low enough and from which it goes up.
    low: bool,
    bounds: (f64, f64),
    widths: (f64, f64),
}

/// What a search says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Said {
    /// The step will do.
    Done,
    /// A step to try.
    Try(f64),
    /// No step is better than this within rounding.
    Stuck,
}

impl Search {
    /// A search that tries `first`; `slope` is negative.
    pub fn new(value: f64, slope: f64, first: f64) -> Search {
        let start = Point { at: 0.0, value, slope };
        Search {
            start,
            best: start,
            other: start,
            bracketed: false,
            low: false,
            bounds: (0.0, 5.0 * first),
            widths: (LONGEST, 2.0 * LONGEST),
        }
    }

    /// Takes in value and slope at `at`.
    pub fn tell(&mut self, at: f64, value: f64, slope: f64) -> Said {
        let here = Point { at, value, slope };
        let promised = DECREASE * self.start.slope;
        let enough = self.start.value + at * promised;
        self.low |= value <= enough && slope >= 0.0;
        if value <= enough && slope.abs() <= -FLATTER * self.start.slope {
            return Said::Done;
        }
        let (least, most) = self.bounds;
        let narrow = |least: f64, most: f64| most - least <= NARROW * most;
        if (self.bracketed && (at <= least || at >= most || narrow(least, most))) || (at == LONGEST && value <= enough && slope <= promised)
        {
            return Said::Stuck;
        }
        let mut next = if !self.low && value <= self.best.value && value > enough {
            // Before that the line of sufficient decrease is taken off.
            let (mut best, mut other) = (self.best.less(promised), self.other.less(promised));
            let next = step(&mut best, &mut other, here.less(promised), &mut self.bracketed, self.bounds);
            (self.best, self.other) = (best.less(-promised), other.less(-promised));
            next
        } else {
            step(&mut self.best, &mut self.other, here, &mut self.bracketed, self.bounds)
        };
        let (a, b) = (self.best.at, self.other.at);
        if self.bracketed {
            if (b - a).abs() >= 0.66 * self.widths.1 {
                next = a + 0.5 * (b - a);
            }
            self.widths = ((b - a).abs(), self.widths.0);
            self.bounds = (a.min(b), a.max(b));
        } else {
            self.bounds = (next + 1.1 * (next - a), next + 4.0 * (next - a));
        }
        next = next.clamp(0.0, LONGEST);
        let (least, most) = self.bounds;
        if self.bracketed && (next <= least || next >= most || narrow(least, most)) {
            next = a;
        }
        Said::Try(next)
    }
}

/// A safeguarded step from cubics and parabolas through three points; renews the interval.
fn step(best: &mut Point, other: &mut Point, here: Point, bracketed: &mut bool, bounds: (f64, f64)) -> f64 {
    let (x, p) = (*best, here);
    let far = if p.at > x.at { bounds.1 } else { bounds.0 };
    let parabola = || p.at + p.slope / (p.slope - x.slope) * (x.at - p.at);
    let turned = p.slope * x.slope.signum() < 0.0;
    let next = if p.value > x.value {
        *bracketed = true;
        let cubic = cubic(x, p);
        let flat = x.at + x.slope / ((x.value - p.value) / (p.at - x.at) + x.slope) / 2.0 * (p.at - x.at);
        if (cubic - x.at).abs() < (flat - x.at).abs() { cubic } else { cubic + (flat - cubic) / 2.0 }
    } else if turned {
        *bracketed = true;
        let (cubic, line) = (cubic(p, x), parabola());
        if (cubic - p.at).abs() > (line - p.at).abs() { cubic } else { line }
    } else if p.slope.abs() < x.slope.abs() {
        let cubic = onward(p, x).unwrap_or(far);
        let line = parabola();
        let nearer = (cubic - p.at).abs() < (line - p.at).abs();
        if *bracketed {
            let next = if nearer { cubic } else { line };
            let limit = p.at + 0.66 * (other.at - p.at);
            if p.at > x.at { next.min(limit) } else { next.max(limit) }
        } else {
            (if nearer { line } else { cubic }).clamp(bounds.0, bounds.1)
        }
    } else if *bracketed {
        cubic(p, *other)
    } else {
        far
    };
    if p.value > x.value {
        *other = p;
    } else {
        if turned {
            *other = x;
        }
        *best = p;
    }
    next
}

/// θ and γ of the cubic through two points; γ is imaginary (0 then) where it has no minimum.
fn shape(a: Point, b: Point) -> (f64, f64) {
    let theta = 3.0 * (a.value - b.value) / (b.at - a.at) + a.slope + b.slope;
    let s = theta.abs().max(a.slope.abs()).max(b.slope.abs());
    let gamma = s * ((theta / s).powi(2) - a.slope / s * (b.slope / s)).max(0.0).sqrt();
    (theta, if b.at < a.at { -gamma } else { gamma })
}

/// Where the cubic through two points is lowest.
fn cubic(a: Point, b: Point) -> f64 {
    let (theta, gamma) = shape(a, b);
    a.at + ((gamma - a.slope) + theta) / (((gamma - a.slope) + gamma) + b.slope) * (b.at - a.at)
}

/// Where the cubic through two points is lowest beyond `a`, away from `b`, if it is.
fn onward(a: Point, b: Point) -> Option<f64> {
    let (theta, gamma) = shape(a, b);
    let r = ((gamma - a.slope) + theta) / ((gamma + (b.slope - a.slope)) + gamma);
    (r < 0.0 && gamma != 0.0).then_some(a.at + r * (b.at - a.at))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps tried until the search is done, for a function of the step.
    fn steps(first: f64, f: impl Fn(f64) -> (f64, f64)) -> Vec<f64> {
        let (value, slope) = f(0.0);
        let mut search = Search::new(value, slope, first);
        let mut tried = vec![first];
        for _ in 0..30 {
            let at = tried[tried.len() - 1];
            let (v, s) = f(at);
            match search.tell(at, v, s) {
                Said::Done => return tried,
                Said::Try(next) => tried.push(next),
                Said::Stuck => break,
            }
        }
        panic!("not done: {tried:?}");
    }

    #[test]
    fn goes_on_where_the_first_step_is_short() {
        // (x − 1000)²: a parabola has its bottom found by the second or third step that lies beyond the first.
        let tried = steps(1.0, |x| ((x - 1000.0).powi(2), 2.0 * (x - 1000.0)));
        let last = tried[tried.len() - 1];
        assert!(tried.len() > 1 && (last - 1000.0).abs() < 950.0, "{tried:?}");
    }

    #[test]
    fn goes_back_where_it_is_long() {
        let tried = steps(1e3, |x| ((x - 1.0).powi(2), 2.0 * (x - 1.0)));
        let last = tried[tried.len() - 1];
        assert!(tried.len() <= 4 && (last - 1.0).abs() < 0.9, "{tried:?}");
    }

    #[test]
    fn takes_a_step_that_will_do() {
        assert_eq!(steps(1.0, |x| ((x - 1.2).powi(2), 2.0 * (x - 1.2))), [1.0]);
    }
}
