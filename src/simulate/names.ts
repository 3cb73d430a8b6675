/** What simulated people, groups and jobs are called; some of it in letters that programs stumble over. */
const GIVEN =
  'Ada Alan Amina Anders Anna Aroha Bianca Björn Chidi Chloé Daniela David Elif Emeka Erik Fatima Felix Grace Hana Ines Ivan Jana João José Katherine Kenji Lars Lena Leyla Linus Łukasz Maja Marco Maria Mateo Mei Miriam Nadia Niamh Noor Olga Omar Oscar Priya Rania Ravi Sara Sofia Tariq Thandi Tomáš Ursula Viktor Wei Yara Yuki Zoë';
const FAMILY =
  "Adeyemi Almeida Andersson Bauer Becker Berg Brown Chen Costa D'Angelo Dubois Eriksen Fischer Fernández García Gruber Haddad Hansen Hopper Horváth Ibrahim Jansen Johnson Kaya Khan Kim Kowalski Larsen Lee Lindqvist Lovelace Martins Müller Nakamura Nguyen Nováková O'Brien Okafor Olsen Patel Petrov Ramirez Rossi Ruiz Saito Schmidt Silva Singh Smith Svensson Tanaka Turing Vos Walker Weber Williams Yılmaz Zhang";
const TITLES =
  'Engineer|Senior Engineer|Staff Engineer|Designer|Product Manager|Analyst|Accountant|Support Agent|Recruiter|Team Lead|Director';
const DEPARTMENTS = 'Engineering|Design|Product|Finance|Support|People|Sales|Legal';
const GROUPS =
  'Engineering|Administrators|Finance|Support|Sales|Everyone EU|Contractors|Release Managers|Auditors|Design|On-call|Legal';

export const given = GIVEN.split(' ');
export const family = FAMILY.split(' ');
export const titles = TITLES.split('|');
export const departments = DEPARTMENTS.split('|');
export const groupNames = GROUPS.split('|');

export function ascii(name: string): string {
  return name
    .toLowerCase()
    .replaceAll('ł', 'l')
    .replaceAll('ı', 'i')
    .normalize('NFD')
    .replaceAll(/[^a-z]/g, '');
}
