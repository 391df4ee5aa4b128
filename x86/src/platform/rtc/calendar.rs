//! The Gregorian calendar.

/// Seconds in a day.
pub(super) const DAY: u64 = 86_400;

/// A point of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Calendar {
    pub(super) year: u64,
    pub(super) month: u64,
    pub(super) date: u64,
    /// 1 is Sunday.
    pub(super) day_of_week: u64,
    /// Seconds of the day.
    pub(super) second: u64,
}

impl Calendar {
    fn is_leap(year: u64) -> bool {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    }

    /// The number of days of a month, 1 to 12.
    pub(super) fn days_of_month(year: u64, month: u64) -> u64 {
        match month {
            2 if Self::is_leap(year) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// Days from 1 January of year 0 to 1 January of `year`.
    fn days_to(year: u64) -> u64 {
        let last = year.saturating_sub(1);
        365 * year + if year == 0 { 0 } else { last / 4 - last / 100 + last / 400 + 1 }
    }

    fn from_days(days: u64, day_of_week: u64, second: u64) -> Self {
        let mut year = days / 366;
        while Self::days_to(year + 1) <= days {
            year += 1;
        }
        let (mut month, mut date) = (1, days - Self::days_to(year));
        while date >= Self::days_of_month(year, month) {
            date -= Self::days_of_month(year, month);
            month += 1;
        }
        Calendar { year, month, date: date + 1, day_of_week, second }
    }

    /// The point so many seconds after 1970.
    pub(super) fn from_epoch(epoch: u64) -> Self {
        let days = (epoch / DAY) % (146_097 * 20); // years of four digits are enough
        Self::from_days(Self::days_to(1970) + days, (days + 4) % 7 + 1, epoch % DAY)
    }

    /// The point so many seconds later. After the year 9999 comes the year 0.
    pub(super) fn plus(self, seconds: u64) -> Self {
        let second = self.second + seconds % DAY;
        let days = seconds / DAY + second / DAY;
        if days == 0 {
            return Calendar { second, ..self };
        }
        let of_year: u64 = (1..self.month).map(|m| Self::days_of_month(self.year, m)).sum();
        let day = (Self::days_to(self.year) + of_year + self.date - 1 + days) % Self::days_to(10_000);
        Self::from_days(day, (self.day_of_week - 1 + days) % 7 + 1, second % DAY)
    }
}
